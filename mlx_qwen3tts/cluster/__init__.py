"""Work for other machines: a dask.distributed cluster whose workers load the model and speak or listen."""
