//! Stages 1 and 13: files to volumes and label maps to files.
