"""What a key of params.yaml means, where the comment beside it in params.py does not say all."""

from __future__ import annotations

from densecl.config.params import CONTROL_SET

# By class and field.
MEANINGS = {
    "Params.modes": "the modes to train and compare; with seeds, the "
    "runs: one mode and one seed is one run",
    "Params.seeds": "seeds of everything random; three or more speak of "
    "the modes, fewer of these models only",
    "Params.render": "sets that are drawn by code; {} where every set "
    "is a folder or an archive of yours",
    "Params.datasets": "every set by its name",
    "RenderParams.style": "how the images are drawn",
    "RenderParams.folder": "folder under data/rendered",
    "RenderParams.images_per_class": "images drawn of each class",
    "RenderParams.size": "side of the images",
    "RenderParams.seed": "seed of the drawing",
    "DatasetParams.root": "folder or archive of the set, as it was "
    "unpacked or downloaded (docs/datasets.md)",
    "DatasetParams.tracked_by": "folder, archive or version file whose content "
    "tells whether the set has changed",
    "DatasetParams.layout": "how labels are told: wnid folders, index folders (V2), or "
    "the flat validation archive with its devkit",
    "DatasetParams.images": "images to hold the set to",
    "DatasetParams.classes": "classes to hold the set to",
    "ValidateParams.bad_images": "unreadable files stop the run, or are left out and named",
    "ValidateParams.minimum_per_class": "fewest images a class may have",
    "NetworkParams.model_name": "timm's name of the architecture",
    "NetworkParams.model_args": "further arguments of timm.create_model, "
    "such as img_size or drop_rate",
    "NetworkParams.pretrained": "start from timm's weights for the model, which timm downloads",
    "NetworkParams.checkpoint": "start from this local safetensors file",
    "ColorJitterParams.brightness": "largest relative change of brightness, "
    "as torchvision's ColorJitter",
    "ColorJitterParams.contrast": "likewise of contrast",
    "ColorJitterParams.saturation": "likewise of saturation",
    "ColorJitterParams.hue": "largest shift of hue, as a share of the colour circle",
    "ViewParams.scale": "least and largest area of the crop",
    "ViewParams.ratio": "least and largest shape of the crop",
    "ViewParams.blur": "Gaussian blur",
    "DataParams.cache": "where decoded training images are kept",
    "DataParams.min_overlap": "least overlap of the two crops",
    "DataParams.flip": "probability of a horizontal flip, for each view",
    "DataParams.blur_sigma": "least and largest sigma of the blur",
    "GlobalContrastParams.lambda_weight": "weight of the contrastive loss; "
    "classification has 1 - lambda",
    "GlobalContrastParams.contrastive_weight_adaptive": "raise lambda from 0 to lambda_weight over "
    "ramp_epochs, along half a cosine",
    "GlobalContrastParams.ramp_epochs": "length of that ramp",
    "GlobalContrastParams.queue_size": "entries of the memory of negatives; cut, with a "
    "warning, to half of what an epoch writes",
    "GlobalContrastParams.temperature": "of InfoNCE; where it starts, if it is learned",
    "GlobalContrastParams.learnable_temp": "learn the temperature, within [0.01, 1]",
    "GlobalContrastParams.dense_dim": "dimension of what is compared",
    "GlobalContrastParams.negatives": "all entries of other images, or only those of other classes",
    "GlobalContrastParams.key_encoder": "keys come from the trained weights, or "
    "from a moving average of them",
    "GlobalContrastParams.key_momentum": "momentum of that moving average",
    "GlobalContrastParams.symmetric": "score view 2 against view 1 as well",
    "DenseContrastParams.sampling_strategy": "which patches of view 1 are queries (docs/method.md)",
    "DenseContrastParams.patches_per_image": "sampled patches of an image; all, where it has fewer",
    "DenseContrastParams.correspondence_features": "matches are found on the head's features, the "
    "backbone's, or the crops' geometry",
    "DenseContrastParams.correspondence_filter": "matches that count: all, mutual ones, or those "
    "as alike as correspondence_threshold",
    "DenseContrastParams.correspondence_threshold": "least similarity",
    "DenseContrastParams.memory_unit": "what is stored of an image: its "
    "sampled keys, or one pooled key",
    "DenseContrastParams.memory_per_image": "most keys of an image that are stored",
    "ContrastParams.dense": "keys of this section that differ for mode dense",
    "ContrastParams.global_": "keys of this section that differ for mode global",
    "TrainParams.batch_size": "images a step, each in two views",
    "TrainParams.epochs": "passes over the training set",
    "TrainParams.learning_rate": "peak of the learning rate",
    "TrainParams.learning_rate_batch": "where the rate is scaled linearly with the batch",
    "TrainParams.layer_decay": "factor of the rate from each block to the "
    "one before it; null: one rate",
    "TrainParams.drop_path": "share of residual paths dropped in the last block (stochastic depth)",
    "TrainParams.ema_decay": "decay of the weights' moving average, which is then exported",
    "TrainParams.precision": "of the backbone and heads",
    "TrainParams.weight_decay": "of AdamW; not of norms, biases, positions and the temperature",
    "TrainParams.warmup_epochs": "epochs in which the learning rate rises; fewer than epochs",
    "TrainParams.grad_clip": "largest norm of the gradient; null: no clipping",
    "TrainParams.label_smoothing": "share of the target spread over all classes",
    "TrainParams.steps_per_epoch": "end epochs early, to try things",
    "TrainParams.validate_on": "sets whose top-1 is watched after each epoch",
    "EvaluateParams.datasets": f"sets to evaluate; {CONTROL_SET} must be one: "
    f"it is the control of the others",
    "EvaluateParams.batch_size": "images at a time",
    "EvaluateParams.preprocess": "the model's own preprocessing, or as-is for "
    "images that have the input size",
    "ReportParams.confidence": "level of all intervals and tests",
    "ReportParams.bootstrap_samples": "redraws of the images for an interval",
    "GateParams.margin": "how much worse on val a candidate may be, at most",
    "GateParams.max_drop": "how much any set may fall, at most",
    "GateParams.minimum": "what a first champion must reach",
    "RetrainingParams.mode": "mode of the candidate",
    "RetrainingParams.registry": "name of the model in MLflow's registry",
    "RetrainingParams.git": "keep params, dvc.lock and small reports of each retraining: "
    "under a tag, or as commits of a branch, tagged",
    "RetrainingParams.branch": "the branch of those commits",
    "NotifyParams.webhook": "where the outcome is posted as JSON that Slack shows too",
    "NotifyParams.file": "file that the outcome is appended to",
}
