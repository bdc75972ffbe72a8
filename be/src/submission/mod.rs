//! Mail that leaves.

pub mod queue;
