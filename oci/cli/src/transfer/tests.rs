//! Whole images on their way.
