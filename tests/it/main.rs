mod geometry {}
