"""The places where trials run: this process, processes of this machine, Dask, Ray, Slurm or a pool."""
