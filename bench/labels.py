"""What the metrics of a results file are called."""

LABELS = {
    "psnr_rgb": "PSNR-RGB",
    "psnr_y": "PSNR-Y",
    "ms_ssim_db": "MS-SSIM (dB)",
    "ssimulacra2": "SSIMULACRA2",
}


def metrics_of(results):
    """Metrics that the rows hold; a folder of grey pictures has one PSNR."""
    grey = all(picture["channels"] == 1 for picture in results["pictures"])
    return [
        name
        for name in LABELS
        if not (grey and name == "psnr_y") and any(r.get(name) is not None for r in results["rows"])
    ]


def label(results, metric):
    """Name of a metric in tables and figures."""
    grey = all(picture["channels"] == 1 for picture in results["pictures"])
    return "PSNR" if grey and metric == "psnr_rgb" else LABELS[metric]
