//! A recipe of Debian packages, made into a base image.
