//! Which roles a certificate's name may take: maps in the syntax of pg_ident.conf
//! (`parse_ident_line` and `check_usermap` in src/backend/libpq/hba.c), one line per string.

use super::rules::LineError;
use super::rules::line::Line;

/// The maps. Immutable: a reload makes new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentMaps(Vec<Entry>);

/// `MAPNAME SYSTEM-USERNAME DATABASE-USERNAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    map: Box<str>,
    certificate_name: Box<str>,
    /// `None` stands for all.
    user: Option<Box<str>>,
}

impl IdentMaps {
    /// Reads lines of pg_ident.conf. Empty lines and comments are passed over.
    ///
    /// # Errors
    /// A line has not three words, or asks for what Tidegate does not do.
    pub fn parse<S: AsRef<str>>(lines: &[S]) -> Result<Self, LineError> {
        let numbered = lines.iter().zip(1..);
        let entries = numbered.filter_map(|(text, number)| entry(number, text.as_ref()).transpose());
        entries.collect::<Result<_, _>>().map(Self)
    }

    /// Whether who holds a certificate of that name may be `user`. Without a map the names must be equal;
    /// a map that nobody has written allows nothing.
    #[must_use]
    pub fn allows(&self, map: Option<&str>, certificate_name: &str, user: &str) -> bool {
        if certificate_name.is_empty() {
            return false;
        }
        let Some(map) = map.filter(|map| !map.is_empty()) else { return certificate_name == user };
        self.0.iter().any(|entry| {
            *entry.map == *map
                && *entry.certificate_name == *certificate_name
                && entry.user.as_deref().is_none_or(|named| named == user)
        })
    }

    /// Whether there is a map of that name.
    #[must_use]
    pub fn has(&self, map: &str) -> bool {
        self.0.iter().any(|entry| *entry.map == *map)
    }
}

fn entry(number: usize, text: &str) -> Result<Option<Entry>, LineError> {
    const MISSING: &str = "a word is missing behind it; write MAPNAME SYSTEM-USERNAME DATABASE-USERNAME";
    const REGEX: &str = "regular expressions are not supported; write a line for each name";
    let Some(mut line) = Line::read(number, text)? else { return Ok(None) };
    let map = line.one(MISSING)?;
    let certificate_name = line.one(MISSING)?;
    let user = line.one(MISSING)?;
    if let Some(word) = line.next().into_iter().flatten().next() {
        return Err(line.error(&word, "one word too many; put names that hold blanks in quotes"));
    }
    if let Some(word) = [&certificate_name, &user].into_iter().find(|word| word.text.starts_with('/')) {
        return Err(line.error(word, REGEX));
    }
    if user.begins('+') {
        return Err(line.error(&user, "memberships are not known here; write a line for each user"));
    }
    Ok(Some(Entry {
        map: map.text.into(),
        certificate_name: certificate_name.text.into(),
        user: (!user.is("all")).then(|| user.text.into()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_map_names_must_be_equal() {
        let maps = IdentMaps::default();
        for none in [None, Some("")] {
            assert!(maps.allows(none, "anna", "anna"));
            assert!(!maps.allows(none, "anna", "Anna"));
            assert!(!maps.allows(none, "", ""));
        }
        assert!(!maps.allows(Some("m"), "anna", "anna"));
    }

    #[test]
    fn a_map_allows_what_its_lines_say() {
        let maps = IdentMaps::parse(&[
            "# who may be whom",
            "m anna app",
            "m anna report # and more",
            "m \"O=x, CN=y\" app",
            "m root all",
            "n root \"all\"",
            "",
        ])
        .unwrap();
        for (map, name, user, wanted) in [
            ("m", "anna", "app", true),
            ("m", "anna", "report", true),
            ("m", "anna", "anna", false),
            ("m", "bert", "app", false),
            ("m", "O=x, CN=y", "app", true),
            ("m", "root", "postgres", true),
            ("n", "root", "postgres", false),
            ("n", "root", "all", true),
            ("o", "anna", "anna", false),
            ("m", "", "app", false),
        ] {
            assert_eq!(maps.allows(Some(map), name, user), wanted, "{map} {name} {user}");
        }
        assert!(maps.has("n") && !maps.has("o"));
    }

    #[test]
    fn lines_that_cannot_be_kept_are_named() {
        for (line, word, problem) in [
            ("m", "m", "a word is missing"),
            ("m anna", "anna", "a word is missing"),
            ("m anna app more", "more", "one word too many"),
            ("m anna,bert app", "bert", "one word only"),
            ("m /^(.*)@x$ \\1", "/^(.*)@x$", "regular expressions"),
            ("m anna /app", "/app", "regular expressions"),
            ("m anna +staff", "+staff", "memberships"),
            ("m @names app", "@names", "other files"),
        ] {
            let error = IdentMaps::parse(&["", line]).unwrap_err();
            assert_eq!((error.line, error.word.as_str()), (2, word));
            assert!(error.problem.contains(problem), "{line}: {error}");
        }
    }
}
