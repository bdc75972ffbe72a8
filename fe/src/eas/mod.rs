//! The commands of Exchange ActiveSync.

pub mod render;
