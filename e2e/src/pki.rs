//! The lab's certificates and kubeconfigs. One authority per lab, kept in its state folder.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The authority, and the folder for its files.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    dir: PathBuf,
}

/// How a client authenticates to the API server.
#[derive(Debug)]
pub(crate) enum Credential<'a> {
    /// With the certificate of that file name.
    Certificate(&'a str),
    /// With a bearer token.
    Token(&'a str),
}

impl Pki {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The path of a file in the folder, for flags.
    pub(crate) fn path(&self, file: &str) -> String {
        self.dir.join(file).to_string_lossy().into_owned()
    }

    /// Creates the authority and the key that signs the tokens of service accounts.
    pub(crate) fn create(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let key = KeyPair::generate()?;
        let certificate = authority().self_signed(&key)?;
        self.write("ca.key", &key.serialize_pem())?;
        self.write("ca.crt", &certificate.pem())?;
        let signing = KeyPair::generate()?;
        self.write("sa.key", &signing.serialize_pem())?;
        self.write("sa.pub", &signing.public_key_pem())
    }

    /// Issues `NAME.crt` and `NAME.key` for a user, its groups and its addresses.
    pub(crate) fn issue(
        &self,
        name: &str,
        user: &str,
        groups: &[&str],
        addresses: &[IpAddr],
        dns: &[&str],
    ) -> Result<()> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, user);
        for &group in groups {
            subject.push(DnType::OrganizationName, group);
        }
        params.distinguished_name = subject;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = addresses
            .iter()
            .map(|&address| SanType::IpAddress(address))
            .collect();
        for &name in dns {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.try_into()?));
        }
        let authority_key = std::fs::read_to_string(self.dir.join("ca.key"))
            .context("the lab's authority is gone")?;
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&authority_key)?);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        self.write(&format!("{name}.crt"), &certificate.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())
    }

    /// Writes a kubeconfig that needs no other file, so that it can be copied into a pod.
    pub(crate) fn kubeconfig(
        &self,
        file: &str,
        server: &str,
        credential: &Credential<'_>,
    ) -> Result<PathBuf> {
        let read = |file: &str| std::fs::read(self.dir.join(file)).map(|bytes| base64(&bytes));
        let user = match credential {
            Credential::Certificate(name) => json!({
                "client-certificate-data": read(&format!("{name}.crt"))?,
                "client-key-data": read(&format!("{name}.key"))?,
            }),
            Credential::Token(token) => json!({ "token": token }),
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority-data": read("ca.crt")?}}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        });
        self.write(file, &ballast_crds::to_yaml(&config)?)?;
        Ok(self.dir.join(file))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.dir.join(file);
        let mut out = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        std::io::Write::write_all(&mut out, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The loopback address of the API server for programs of the machine.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The authority's parameters: with its key, they are enough to issue certificates later.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "ballast-lab");
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// Standard base64 with padding (RFC 4648), which only kubeconfigs need here.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// The API server's address for components inside the lab.
pub(crate) fn inside(address: IpAddr) -> String {
    format!("https://{address}:6443")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn issues_after_the_authority_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path().join("pki"));
        pki.create().unwrap();
        pki.issue(
            "admin",
            "admin",
            &["system:masters", "more"],
            &[LOOPBACK],
            &["lab"],
        )
        .unwrap();
        pki.kubeconfig(
            "admin.kubeconfig",
            "https://127.0.0.1:1",
            &Credential::Certificate("admin"),
        )
        .unwrap();
        let names = std::fs::read_dir(dir.path().join("pki"))
            .unwrap()
            .flatten()
            .map(|file| file.file_name());
        let mut made: Vec<_> = names.collect();
        made.sort();
        assert_eq!(
            made,
            [
                "admin.crt",
                "admin.key",
                "admin.kubeconfig",
                "ca.crt",
                "ca.key",
                "sa.key",
                "sa.pub"
            ]
        );
    }
}
