//! To come: histories against a naive model.
