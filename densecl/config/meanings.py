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
    "RenderSet.style": "how the images are drawn",
    "RenderSet.folder": "folder under data/rendered",
    "RenderSet.images_per_class": "images drawn of each class",
    "RenderSet.size": "side of the images",
    "RenderSet.seed": "seed of the drawing",
    "Dataset.root": "folder or archive of the set, as it was "
    "unpacked or downloaded (docs/datasets.md)",
    "Dataset.tracked_by": "folder, archive or version file whose content "
    "tells whether the set has changed",
    "Dataset.layout": "how labels are told: wnid folders, index folders (V2), or "
    "the flat validation archive with its devkit",
    "Dataset.images": "images to hold the set to",
    "Dataset.classes": "classes to hold the set to",
    "Validate.bad_images": "unreadable files stop the run, or are left out and named",
    "Validate.minimum_per_class": "fewest images a class may have",
    "Network.model_name": "timm's name of the architecture",
    "Network.model_args": "further arguments of timm.create_model, such as img_size or drop_rate",
    "Network.pretrained": "start from timm's weights for the model, which timm downloads",
    "Network.checkpoint": "start from this local safetensors file",
    "ColorJitter.brightness": "largest relative change of brightness, as torchvision's ColorJitter",
    "ColorJitter.contrast": "likewise of contrast",
    "ColorJitter.saturation": "likewise of saturation",
    "ColorJitter.hue": "largest shift of hue, as a share of the colour circle",
    "View.scale": "least and largest area of the crop",
    "View.ratio": "least and largest shape of the crop",
    "View.blur": "Gaussian blur",
    "Data.cache": "where decoded training images are kept",
    "Data.min_overlap": "least overlap of the two crops",
    "Data.flip": "probability of a horizontal flip, for each view",
    "Data.blur_sigma": "least and largest sigma of the blur",
    "GlobalContrast.lambda_weight": "weight of the contrastive loss; classification has 1 - lambda",
    "GlobalContrast.contrastive_weight_adaptive": "raise lambda from 0 to lambda_weight over "
    "ramp_epochs, along half a cosine",
    "GlobalContrast.ramp_epochs": "length of that ramp",
    "GlobalContrast.queue_size": "entries of the memory of negatives; cut, with a "
    "warning, to half of what an epoch writes",
    "GlobalContrast.temperature": "of InfoNCE; where it starts, if it is learned",
    "GlobalContrast.learnable_temp": "learn the temperature, within [0.01, 1]",
    "GlobalContrast.dense_dim": "dimension of what is compared",
    "GlobalContrast.negatives": "all entries of other images, or only those of other classes",
    "GlobalContrast.key_encoder": "keys come from the trained weights, or "
    "from a moving average of them",
    "GlobalContrast.key_momentum": "momentum of that moving average",
    "GlobalContrast.symmetric": "score view 2 against view 1 as well",
    "DenseContrast.sampling_strategy": "which patches of view 1 are queries (docs/method.md)",
    "DenseContrast.patches_per_image": "sampled patches of an image; all, where it has fewer",
    "DenseContrast.correspondence_features": "matches are found on the head's features, the "
    "backbone's, or the crops' geometry",
    "DenseContrast.correspondence_filter": "matches that count: all, mutual ones, or those "
    "as alike as correspondence_threshold",
    "DenseContrast.correspondence_threshold": "least similarity",
    "DenseContrast.memory_unit": "what is stored of an image: its sampled keys, or one pooled key",
    "DenseContrast.memory_per_image": "most keys of an image that are stored",
    "Contrast.dense": "keys of this section that differ for mode dense",
    "Contrast.global_": "keys of this section that differ for mode global",
    "Train.batch_size": "images a step, each in two views",
    "Train.epochs": "passes over the training set",
    "Train.learning_rate": "peak of the learning rate",
    "Train.learning_rate_batch": "where the rate is scaled linearly with the batch",
    "Train.layer_decay": "factor of the rate from each block to the one before it; null: one rate",
    "Train.drop_path": "share of residual paths dropped in the last block (stochastic depth)",
    "Train.ema_decay": "decay of the weights' moving average, which is then exported",
    "Train.precision": "of the backbone and heads",
    "Train.weight_decay": "of AdamW; not of norms, biases, positions and the temperature",
    "Train.warmup_epochs": "epochs in which the learning rate rises; fewer than epochs",
    "Train.grad_clip": "largest norm of the gradient; null: no clipping",
    "Train.label_smoothing": "share of the target spread over all classes",
    "Train.steps_per_epoch": "end epochs early, to try things",
    "Train.validate_on": "sets whose top-1 is watched after each epoch",
    "Evaluate.datasets": f"sets to evaluate; {CONTROL_SET} must be one: "
    f"it is the control of the others",
    "Evaluate.batch_size": "images at a time",
    "Evaluate.preprocess": "the model's own preprocessing, or as-is for "
    "images that have the input size",
    "Report.confidence": "level of all intervals and tests",
    "Report.bootstrap_samples": "redraws of the images for an interval",
    "Gate.margin": "how much worse on val a candidate may be, at most",
    "Gate.max_drop": "how much any set may fall, at most",
    "Gate.minimum": "what a first champion must reach",
    "Retraining.mode": "mode of the candidate",
    "Retraining.registry": "name of the model in MLflow's registry",
    "Retraining.git": "keep params, dvc.lock and small reports of each retraining: "
    "under a tag, or as commits of a branch, tagged",
    "Retraining.branch": "the branch of those commits",
    "Notify.webhook": "where the outcome is posted as JSON that Slack shows too",
    "Notify.file": "file that the outcome is appended to",
}
