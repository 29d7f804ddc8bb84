//! `DateStyle`: a style of output and an order of fields in one parameter, of which a statement may name either.

/// What is known of it; empty texts for what is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DateStyle {
    style: &'static str,
    order: &'static str,
}

impl DateStyle {
    /// Reads a value, as `check_datestyle` in PostgreSQL's `commands/variable.c` does; nothing of one that is not
    /// understood.
    pub(super) fn read(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value).to_ascii_lowercase();
        let mut found = Self::default();
        for word in text.split(',').map(|word| word.trim_matches([' ', '\t', '\n', '\'', '"'])) {
            match word {
                "iso" => found.style = "ISO",
                "sql" => found.style = "SQL",
                "german" => found.style = "German",
                word if word.starts_with("postgres") => found.style = "Postgres",
                "ymd" => found.order = "YMD",
                "dmy" => found.order = "DMY",
                "mdy" | "us" => found.order = "MDY",
                word if word.starts_with("euro") => found.order = "DMY",
                word if word.starts_with("noneuro") => found.order = "MDY",
                _ => return Self::default(),
            }
        }
        // German brings its order with it, unless one is named.
        if found.style == "German" && found.order.is_empty() {
            found.order = "DMY";
        }
        found
    }

    /// After this one and then another were set.
    pub(super) fn then(self, next: Self) -> Self {
        if next == Self::default() {
            return next;
        }
        let pick = |new: &'static str, old| if new.is_empty() { old } else { new };
        Self { style: pick(next.style, self.style), order: pick(next.order, self.order) }
    }

    /// As it is written.
    pub(super) fn to_text(self) -> String {
        match (self.style, self.order) {
            (style, "") => style.to_owned(),
            ("", order) => order.to_owned(),
            (style, order) => format!("{style}, {order}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_as_in_postgresql() {
        let after = |values: &[&str]| {
            let all = values.iter().map(|value| DateStyle::read(value.as_bytes()));
            all.fold(DateStyle::default(), DateStyle::then).to_text()
        };
        assert_eq!(after(&["German", "YMD"]), "German, YMD");
        assert_eq!(after(&["YMD", "German"]), "German, DMY");
        assert_eq!(after(&["German", "SQL"]), "SQL, DMY");
        assert_eq!(after(&["'Postgres, MDY'", "iso"]), "ISO, MDY");
        assert_eq!(after(&["European"]), "DMY");
        assert_eq!(after(&["SQL, DMY", "nonsense"]), "");
    }
}
