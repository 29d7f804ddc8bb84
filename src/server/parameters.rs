//! What a server reports of itself.

use bytes::BytesMut;

use crate::wire::build;
use crate::wire::server::parameter_status;

/// The parameters that a server has reported, with their values.
#[derive(Debug, Default)]
pub struct Parameters {
    all: Vec<(String, String)>,
    /// A ParameterStatus for each of them; empty where a value has changed since it was put together.
    reports: BytesMut,
    /// Looked up at each transaction's end.
    of_standby: bool,
}

/// The parameter by which a server says whether it is a standby, since PostgreSQL 14.
const IN_HOT_STANDBY: &str = "in_hot_standby";

impl Parameters {
    /// What a server has told at its login.
    #[must_use]
    pub fn new(all: Vec<(String, String)>) -> Self {
        let of_standby = all.iter().any(|(name, value)| name == IN_HOT_STANDBY && value == "on");
        Self { all, reports: BytesMut::new(), of_standby }
    }

    /// Whether the server is a standby, as far as it has said.
    #[must_use]
    pub fn of_standby(&self) -> bool {
        self.of_standby
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Notes what the body of a ParameterStatus message says; nothing, if it is malformed.
    pub fn take_in(&mut self, body: &[u8]) {
        if let Some((name, value)) = parameter_status(body) {
            self.note(name, value);
        }
    }

    /// Notes a ParameterStatus.
    pub fn note(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        match self.all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) if *old == value => return,
            Some((_, old)) => *old = value.into_owned(),
            None => self.all.push((name.into_owned(), value.into_owned())),
        }
        self.reports.clear();
        self.of_standby = self.get(IN_HOT_STANDBY) == Some("on");
    }

    /// A ParameterStatus for each of them, as a client is told them that comes in.
    pub fn reports(&mut self) -> &[u8] {
        if self.reports.is_empty() {
            for (name, value) in &self.all {
                build::parameter_status(&mut self.reports, name.as_bytes(), value.as_bytes());
            }
        }
        &self.reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_was_reported_last() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut parameters = Parameters::new(vec![pair("a", "1"), pair("b", "2")]);
        let told = |parameters: &mut Parameters| parameters.reports().to_vec();
        assert_eq!(told(&mut parameters), b"S\0\0\0\x08a\x001\0S\0\0\0\x08b\x002\0");
        parameters.note(b"a", b"3");
        parameters.note(b"c", b"");
        assert_eq!((parameters.get("a"), parameters.get("d")), (Some("3"), None));
        assert_eq!(told(&mut parameters), b"S\0\0\0\x08a\x003\0S\0\0\0\x08b\x002\0S\0\0\0\x07c\0\0");
        parameters.note(b"c", b"");
        assert_eq!(told(&mut parameters).len(), 26);
        let standby = ["off", "on", "off"].map(|value| {
            parameters.note(IN_HOT_STANDBY.as_bytes(), value.as_bytes());
            parameters.of_standby()
        });
        assert_eq!(standby, [false, true, false]);
    }
}
