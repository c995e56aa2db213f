"""Jobs over whole folders: how one is planned, spread over processes, done and reported.

compressing a folder of pictures becomes archives
restoring   the way back; decompressing: likewise for `femto decompress`, archive by archive
learning    a basis from pictures
verifying   whether archives are what they were; salvaging: pictures of damaged ones
settings    what was asked for, and what a task has to know
plan        which files are pictures, what their archives are called, how work is cut
catalog     the files and pages of one run, on disk
records     the memory of what earlier runs did; written: of the pictures that were restored
runner      what all jobs and all places to run them have in common
local       the processes of this machine, see pool; femto_spark.runner: Spark
tasks       what a worker does with a picture; reconstruction: with an archive; archives: which
sandbox     picture files decoded in a process of their own, with limits
proof       that an archive on disk gives back what its encoder said
originals   deleted, when their archives are proven
measure     PSNR, SSIM, thumbnails and crops; look: what should make people wonder
progress    what is printed while it runs; pulse: how far the processes are
report      report.parquet, report.csv, failures.csv, and page: report.html
summary     what is printed at the end
"""
