//! Volumes of pods: local directories, memory, and files projected from the API.
