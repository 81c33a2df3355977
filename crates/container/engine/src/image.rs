//! Images as a plan needs them.

use std::collections::BTreeMap;
use std::str::FromStr;

use carrack_objects::compose::Service;
use carrack_oci::{Digest, Reference};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::plan::ImageFacts;

impl Engine {
    /// Finds the image of `service`: the one given, or the one it names.
    pub(crate) fn image_of(
        &self,
        service: &Service,
        given: Option<&Digest>,
    ) -> Result<ImageFacts, EngineError> {
        let name = service.image.as_deref();
        if let Some(digest) = given {
            let attempt = format!("reading the image {digest} of service {}", service.name);
            let image = self.images.get(digest).map_err(EngineError::failed(attempt))?;
            return Ok(ImageFacts {
                name: name.map_or_else(|| digest.to_string(), str::to_owned),
                digest: image.digest,
                config: image.config.config,
            });
        }
        let Some(name) = name else {
            return Err(EngineError::Invalid(format!(
                "service {} has no image; build it first",
                service.name
            )));
        };
        let attempt = || format!("looking up the image {name}");
        let reference = Reference::from_str(name).map_err(EngineError::failed(attempt()))?;
        let image = self.images.resolve(&reference.or_latest());
        let image = image
            .map_err(EngineError::failed(attempt()))?
            .ok_or_else(|| EngineError::NotFound { kind: "image", name: name.to_owned() })?;
        Ok(ImageFacts { name: name.to_owned(), digest: image.digest, config: image.config.config })
    }

    /// Finds the images of several services. Those that have none are left out: the plan says so.
    pub(crate) fn images_of<'a>(
        &self,
        services: impl Iterator<Item = &'a Service>,
        given: &BTreeMap<String, Digest>,
    ) -> Result<BTreeMap<String, ImageFacts>, EngineError> {
        let mut images = BTreeMap::new();
        for service in services {
            let digest = given.get(&service.name);
            if digest.is_none() && service.image.is_none() {
                continue;
            }
            match self.image_of(service, digest) {
                Ok(facts) => {
                    images.insert(service.name.clone(), facts);
                }
                Err(EngineError::NotFound { kind: "image", .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }
}
