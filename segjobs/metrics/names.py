"""What scores are called: keys in tables and reports, words on terminals and pages."""

HEADLINE = {
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_dice": "mean Dice",
    "boundary_iou": "boundary IoU",
    "boundary_f": "boundary F",
}
"""Semantic figures of the whole set, and what people call them."""


RATIOS = ("iou", "dice", "precision", "recall", "boundary_iou", "boundary_f")
