//! The C interface of fastnnunet: `include/fastnnunet.h` is made of this crate.
//!
//! Handles, structs and numbers come in; a status goes out, and what went wrong as a sentence. No
//! panic crosses the border, and no memory of one side is freed by the other.
//!
//! Each function runs inside `status::guard` or `status::shielded`; each struct that a caller makes begins with
//! its size (`sized`), so that it can grow.

#![allow(unsafe_code, reason = "what C hands over, Rust cannot check")]

// In the order of the header.
mod status;

mod options;

mod image;

mod progress;

mod segmenter;

mod labels;

mod sized;
mod text;

pub use image::{Image, Type, fnn_image_place};
pub use labels::{
    Geometry, SegmentationResult, Structure, Timing, fnn_result_copy_labels, fnn_result_free,
    fnn_result_geometry, fnn_result_labels, fnn_result_predicted_bytes, fnn_result_save,
    fnn_result_structure, fnn_result_structure_count, fnn_result_timing, fnn_result_timing_count,
    fnn_result_warning, fnn_result_warning_count,
};
pub use options::{FNN_MIRROR_NONE, FNN_MIRROR_X, FNN_MIRROR_Y, FNN_MIRROR_Z, Options};
pub use progress::Progress;
pub use segmenter::{
    Label, Segmenter, fnn_open_folder, fnn_open_mode, fnn_open_model, fnn_open_onnx,
    fnn_segment_files, fnn_segment_images, fnn_segmenter_channels, fnn_segmenter_choice,
    fnn_segmenter_free, fnn_segmenter_grade, fnn_segmenter_label, fnn_segmenter_label_count,
};
pub use status::{Status, fnn_error_message, fnn_version};
