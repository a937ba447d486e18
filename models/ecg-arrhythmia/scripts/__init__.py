"""Classical ECG analysis: beats, intervals and rhythm criteria. numpy, scipy and the MONAI workflow interface only."""
