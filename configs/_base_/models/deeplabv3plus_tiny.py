# A small DeepLabV3+ for small images, which a CPU trains in minutes: 64 channels.
_base_ = "./deeplabv3plus.py"
model = dict(
    decode_head=dict(channels=64, dilations=(1, 2, 4), c1_channels=16),
    auxiliary_head=dict(channels=32),
)
