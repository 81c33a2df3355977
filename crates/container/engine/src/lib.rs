//! Containers, images, volumes and networks as a person means them.
