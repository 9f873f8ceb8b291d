//! Services and classes from manifests. Pure.

use ballast_crds::LoadBalancerClass;
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use serde_json::Value;

use crate::cli::migrate::files;

/// What the files contain.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Services, in the order of the files.
    pub services: Vec<Service>,
    /// Classes.
    pub classes: Vec<DeserializeGuard<LoadBalancerClass>>,
    /// What cannot be read.
    pub broken: Vec<String>,
}

// === impl Manifests ===

impl Manifests {
    /// Adds the objects of a file. One that cannot be read affects no other one. Other kinds are
    /// left out.
    pub fn add(&mut self, yaml: &str, namespace: &str) -> Result<(), files::NotYaml> {
        for document in files::documents(yaml)? {
            files::each(document, &mut |object| self.object(object, namespace));
        }
        Ok(())
    }

    fn object(&mut self, mut object: Value, namespace: &str) {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        match (text("apiVersion"), text("kind")) {
            ("v1", "Service") => {
                if let Some(meta) = object["metadata"].as_object_mut() {
                    meta.entry("namespace").or_insert(namespace.into());
                }
                let title = files::title("Service", &object);
                match serde_json::from_value::<Service>(object) {
                    Ok(service) if service.metadata.name.is_none() => {
                        self.broken.push(format!("{title} has no name"));
                    }
                    Ok(service) => self.services.push(service),
                    Err(error) => self.broken.push(format!("{title} is invalid: {error}")),
                }
            }
            (group, "LoadBalancerClass") if group.starts_with("ballast.dev/") => {
                let title = files::title("LoadBalancerClass", &object);
                match serde_json::from_value(object) {
                    Ok(class) => self.classes.push(class),
                    Err(error) => self.broken.push(format!("{title} is invalid: {error}")),
                }
            }
            _ => {}
        }
    }
}
