# MLflow in files of the work folder: `mlflow ui --backend-store-uri WORK_DIR/TIME/vis_data`. Extra: `trackers`.
vis_backend = dict(type="mmengine.MLflowVisBackend", exp_name="mmseg_m2f")
