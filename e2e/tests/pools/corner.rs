//! A part of the lab for one case.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use crate::common::{ACCEPTED, PROGRAMMED, SOON, Site, addresses, condition};

/// A namespace, a class, and pools that only this class uses. All have the corner's name, or
/// one that begins with it.
pub(crate) struct Corner<'a> {
    pub(crate) site: Site<'a>,
}

// === impl Corner ===

impl<'a> Corner<'a> {
    /// Creates it; `pools` are names and specs.
    pub(crate) async fn of(site: &Site<'a>, name: &str, pools: &[(&str, &str)]) -> Result<Self> {
        site.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n\
             apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {{name: {name}}}\n\
             spec: {{l2: {{addressPoolSelector: {{matchLabels: {{corner: {name}}}}}}}}}\n"
        ))
        .await?;
        let corner = Self {
            site: site.within(name),
        };
        for (pool, spec) in pools {
            corner.pool(pool, spec).await?;
        }
        Ok(corner)
    }

    pub(crate) fn name(&self) -> &str {
        &self.site.namespace
    }

    /// The Services of this class in another namespace, which is created if necessary.
    pub(crate) async fn elsewhere(
        &self,
        namespace: &str,
        labels: &str,
    ) -> Result<Elsewhere<'_, 'a>> {
        let yaml = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{{labels}}}}}\n"
        );
        self.site.apply(&yaml).await?;
        Ok(Elsewhere {
            corner: self,
            site: self.site.within(namespace),
        })
    }

    /// Creates or replaces `CORNER-NAME`. Released addresses of the pool do not rest unless the
    /// spec sets `reuseAfter`.
    pub(crate) async fn pool(&self, name: &str, spec: &str) -> Result<()> {
        let rest = if spec.contains("reuseAfter") {
            ""
        } else {
            "reuseAfter: 0s, "
        };
        let corner = self.name();
        let yaml = format!(
            "apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\n\
             metadata: {{name: {corner}-{name}, labels: {{corner: {corner}}}}}\nspec: {{{rest}{spec}}}\n"
        );
        self.site.apply(&yaml).await
    }

    pub(crate) async fn delete_pool(&self, name: &str) -> Result<()> {
        let name = format!("{}-{name}", self.name());
        let argv = ["delete", "addresspool", &name];
        self.site.lab.kubectl(&argv).await.map(drop)
    }

    /// Waits until the status of a pool meets a condition.
    pub(crate) async fn pool_is(
        &self,
        name: &str,
        check: impl Fn(&Value) -> Result<()>,
    ) -> Result<()> {
        let name = format!("{}-{name}", self.name());
        let argv = ["get", "addresspool", &name, "-o", "jsonpath={.status}"];
        eventually(SOON, || async {
            let text = self.site.lab.kubectl(&argv).await?;
            let status: Value = serde_json::from_str(&text).context("no status yet")?;
            check(&status).with_context(|| format!("{status:#}"))
        })
        .await
        .with_context(|| format!("AddressPool {name}"))
    }

    /// Waits until a condition of a pool has this reason, and returns its message.
    pub(crate) async fn pool_says(&self, name: &str, kind: &str, reason: &str) -> Result<String> {
        let message = std::cell::RefCell::new(String::new());
        self.pool_is(name, |status| {
            let all = status["conditions"].as_array().into_iter().flatten();
            let found = all.into_iter().find(|it| it["type"] == kind);
            let found = found.with_context(|| format!("no {kind}"))?;
            ensure!(found["reason"] == reason, "{kind} is not {reason}");
            let said = found["message"].as_str().unwrap_or_default();
            said.clone_into(&mut message.borrow_mut());
            Ok(())
        })
        .await?;
        Ok(message.into_inner())
    }

    /// Creates a Service of the class; `spec` has further fields. Without `ports` it has port
    /// 80.
    pub(crate) async fn add(&self, name: &str, annotations: &str, spec: &str) -> Result<()> {
        self.add_labelled(name, "", annotations, spec).await
    }

    pub(crate) async fn add_labelled(
        &self,
        name: &str,
        labels: &str,
        annotations: &str,
        spec: &str,
    ) -> Result<()> {
        self.create(&self.site.namespace, name, labels, annotations, spec)
            .await
    }

    async fn create(
        &self,
        namespace: &str,
        name: &str,
        labels: &str,
        annotations: &str,
        spec: &str,
    ) -> Result<()> {
        let class = self.name();
        let ports = if spec.contains("ports:") {
            ""
        } else {
            "ports: [{port: 80}], "
        };
        let yaml = format!(
            "apiVersion: v1\nkind: Service\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}, annotations: {{{annotations}}}}}\n\
             spec: {{type: LoadBalancer, loadBalancerClass: ballast.dev/{class}, {ports}{spec}}}\n"
        );
        self.site.apply(&yaml).await
    }
}

/// See [`Corner::elsewhere`].
pub(crate) struct Elsewhere<'c, 'a> {
    corner: &'c Corner<'a>,
    pub(crate) site: Site<'a>,
}

impl Elsewhere<'_, '_> {
    pub(crate) async fn add(
        &self,
        name: &str,
        labels: &str,
        annotations: &str,
        spec: &str,
    ) -> Result<()> {
        let namespace = &self.site.namespace;
        self.corner
            .create(namespace, name, labels, annotations, spec)
            .await
    }
}

impl Site<'_> {
    /// Waits until a Service has exactly these addresses, in this order, without objections.
    /// Returns the message of `Accepted`.
    pub(crate) async fn has(&self, name: &str, expected: &[&str]) -> Result<String> {
        let service = self
            .service(name, |service| {
                let now: Vec<String> = texts(service);
                ensure!(now == expected, "{now:?}, not {expected:?}");
                given(service)
            })
            .await?;
        Ok(message(&service, ACCEPTED))
    }

    /// Waits until a Service has this many addresses without objections, and returns them.
    pub(crate) async fn given(&self, name: &str, count: usize) -> Result<Vec<String>> {
        let service = self
            .service(name, |service| {
                ensure!(texts(service).len() == count, "not {count} addresses");
                given(service)
            })
            .await?;
        Ok(texts(&service))
    }

    /// Waits until a Service without an address reports the reason, and returns the message.
    pub(crate) async fn waits(&self, name: &str, reason: &str) -> Result<String> {
        let service = self
            .service(name, |service| {
                ensure!(texts(service).is_empty(), "it has an address");
                let now = condition(service, PROGRAMMED).context("not Programmed")?;
                let fits = now.status == "False" && now.reason == reason;
                ensure!(fits, "Programmed is not False with {reason}");
                Ok(())
            })
            .await?;
        Ok(message(&service, PROGRAMMED))
    }

    /// Waits until a Service that keeps these addresses reports that it should not have them,
    /// or cannot get what it asks for.
    pub(crate) async fn keeps(&self, name: &str, address: &str, reason: &str) -> Result<String> {
        let service = self
            .service(name, |service| {
                ensure!(texts(service) == [address], "not {address}");
                let now = condition(service, ACCEPTED).context("not Accepted")?;
                let fits = now.status == "False" && now.reason == reason;
                ensure!(fits, "Accepted is not False with {reason}");
                Ok(())
            })
            .await?;
        Ok(message(&service, ACCEPTED))
    }
}

fn given(service: &Service) -> Result<()> {
    let accepted = condition(service, ACCEPTED).context("not Accepted")?;
    ensure!(accepted.status == "True", "Accepted is not True");
    let programmed = condition(service, PROGRAMMED).context("not Programmed")?;
    ensure!(programmed.reason == "NotAnnounced", "not NotAnnounced");
    Ok(())
}

pub(crate) fn texts(service: &Service) -> Vec<String> {
    addresses(service).iter().map(IpAddr::to_string).collect()
}

fn message(service: &Service, kind: &str) -> String {
    condition(service, kind).map_or(String::new(), |it| it.message.clone())
}

/// Checks that the message has all of these words.
pub(crate) fn tells(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(said.contains(word), "no {word:?} in {said:?}");
    }
    Ok(())
}
