"""The Spark side of femto: how a folder of pictures is planned, spread over a cluster, compressed
and reported. `femto` itself knows nothing of Spark.

plan      which files are pictures, what their archives are called, how work is cut
records   files written whole or not at all, and the memory of what earlier runs did
sandbox   picture files decoded in a process of their own, with limits
measure   PSNR, SSIM, thumbnails and crops
tasks     what runs in an executor
session   the Spark session, the package on every node, who can see the folders
job       the driver: batches, rounds, failures
progress  what is printed while it runs
report    report.html and report.csv
"""
