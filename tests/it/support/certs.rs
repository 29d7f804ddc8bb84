//! Certificates, made anew for each test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    SignatureAlgorithm,
};

/// A directory with certificates in it; gone when dropped.
pub(crate) struct Certs {
    dir: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
    algorithm: &'static SignatureAlgorithm,
}

impl Certs {
    /// With `root.crt`, which vouches for all others.
    pub(crate) fn new(name: &str) -> Self {
        Self::signed_by(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// The same with keys, and so signatures, of another kind.
    pub(crate) fn signed_by(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let dir = std::env::temp_dir().join(format!("tidegate-certs-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("{name} root"));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate_for(algorithm).unwrap()).unwrap();
        fs::write(dir.join("root.crt"), ca.pem()).unwrap();
        Self { dir, ca, algorithm }
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.dir.join(file).to_str().unwrap().to_owned()
    }

    /// `NAME.crt` and `NAME.key` for a host or a role; those that were there are replaced.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
        self.write_key(name, &key);
    }

    /// One that nobody vouches for, and that says it may vouch for others, as `openssl req -x509` makes them.
    pub(crate) fn self_signed(&self, name: &str, hosts: &[&str]) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(self.dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
        self.write_key(name, &key);
    }

    fn write_key(&self, name: &str, key: &KeyPair) {
        let file = self.dir.join(format!("{name}.key"));
        fs::write(&file, key.serialize_pem()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Puts a certificate and its key where a server looks for them, owned as its directory is.
    pub(crate) fn give(&self, name: &str, data: &Path) {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let owner = fs::metadata(data).unwrap();
        for (from, to) in [("crt", "server.crt"), ("key", "server.key")] {
            let to = data.join(to);
            fs::copy(self.dir.join(format!("{name}.{from}")), &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let root = data.join("root.crt");
        fs::copy(self.dir.join("root.crt"), &root).unwrap();
        chown(&root, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

impl Drop for Certs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
