# timm's ResNet-18 from random weights with one more map, of stride 2: sharper masks of small objects.
backbone = dict(type="mmseg.TIMMBackbone", model_name="resnet18", pretrained=False, out_indices=(0, 1, 2, 3, 4))
