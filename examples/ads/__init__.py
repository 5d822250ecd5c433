"""The application: train, compare and evaluate the methods of the library on images, started by `python examples/ads`.

| module | content |
| --- | --- |
| `program` | the program: options first, then the slow imports; errors in one line |
| `config`, `options` | the options and their checks |
| `saved_runs`, `run_folder`, `locks` | the runs on disk: list, resume, create, lock |
| `datasets` | the images: a synthetic set, annotations of advertisements, or your own with their labels |
| `reader`, `user_files`, `labelled_images` | annotations of advertisements; images, labels and predictions |
| `synthetic`, `posters` | the synthetic set |
| `runs` | one run, a comparison of all methods, or the paper's four runs |
| `pipeline` | the steps of a run |
| `features`, `methods`, `evaluation` | its steps: features of images; undersamplers and methods; metrics |
| `monitoring` | durations, memory, warnings and records of training |
| `results`, `metric_notes`, `report`, `figures` | what a run writes |
"""
