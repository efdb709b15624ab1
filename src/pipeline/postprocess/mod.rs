//! Stage 12: a label map is cleaned up, in millimetres and patient axes.
//!
//! A [`Map`] enters, edited in place. Each step is a plain function; a [`Recipe`] is a list of
//! them in JSON. Steps work on [`Runs`] (row pieces of one label), built in one parallel pass
//! over the voxels and kept up to date while labels only change run by run: a component step on
//! any number of labels costs as much as on one. Morphology works on bits in the bounding
//! box of each label. Nothing depends on the number of threads.

pub mod bodies;
pub mod components;
pub mod cortical;
pub mod distance;
pub mod holes;
pub mod keep;
pub mod morphology;
pub mod nearest;
pub mod neighbor;
pub mod nnunet;
pub mod order;
pub mod recipe;
pub mod runs;
pub mod sides;

mod bits;
mod map;
mod patient;
mod steps;

pub use components::{Components, Connectivity};
pub use map::{Classes, Map};
pub use patient::PatientAxes;
pub use recipe::{Recipe, Report, StepReport};
pub use runs::{Run, Runs, Voxel};
