# MLflow in a database of the working directory, which `mlflow ui` shows there. Needs the extra `trackers`.
vis_backend = dict(type="mmengine.MLflowVisBackend", exp_name="mmseg_m2f", tracking_uri="sqlite:///mlflow.db")
