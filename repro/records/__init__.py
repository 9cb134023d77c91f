"""What a run leaves behind: schema, run ids, the atomic store, measurements, environment.

`docs/records.md` describes the files for programs outside of this repository.
"""
