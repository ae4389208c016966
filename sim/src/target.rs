//! Which cards run a module: its `.target`, and the PTX version that the target needs.

/// A `.target` such as `sm_90a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    name: String,
    major: u32,
    minor: u32,
    reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// This compute capability and every later one.
    Onward,
    /// Later ones of the same major number (`f`).
    Family,
    /// No other (`a`).
    Exact,
}

impl Target {
    /// Reads a target and checks that the module's PTX version knows it.
    pub(crate) fn new(name: &str, version: (u32, u32)) -> Result<Self, String> {
        if name.is_empty() {
            return Err("the module has no `.target`".to_owned());
        }
        let Some(digits) = name.strip_prefix("sm_") else {
            return Err(format!("`.target {name}`: a target such as sm_90a expected"));
        };
        let (digits, reach) = match (digits.strip_suffix('a'), digits.strip_suffix('f')) {
            (Some(digits), _) => (digits, Reach::Exact),
            (_, Some(digits)) => (digits, Reach::Family),
            _ => (digits, Reach::Onward),
        };
        let Some(number) = digits.parse::<u32>().ok().filter(|&n| n >= 20) else {
            return Err(format!("`.target {name}`: a target such as sm_90a expected"));
        };
        let (major, minor) = (number / 10, number % 10);
        // The first versions that know a target; those of older cards are older than anything that is still made.
        let needs = match (major, minor, reach) {
            (_, _, Reach::Family) => (8, 8),
            (12, ..) => (8, 7),
            (10.., ..) => (8, 6),
            (9, 0, Reach::Exact) => (8, 0),
            (8, 9, _) | (9, ..) => (7, 8),
            (8, ..) => (7, 0),
            (7, ..) => (6, 0),
            _ => (1, 0),
        };
        if version < needs {
            let ((major, minor), (has, had)) = (needs, version);
            return Err(format!(
                "`.target {name}` needs PTX version {major}.{minor}, the module has {has}.{had}"
            ));
        }
        Ok(Self { name: name.to_owned(), major, minor, reach })
    }

    /// Whether a card of this compute capability runs the module; if not, why.
    pub(crate) fn check(&self, card: (u32, u32)) -> Result<(), String> {
        let own = (self.major, self.minor);
        let (fits, who) = match self.reach {
            Reach::Exact => (card == own, "and no other"),
            Reach::Family => (card.0 == own.0 && card.1 >= own.1, "and later ones of its family"),
            Reach::Onward => (card >= own, "and later"),
        };
        if fits {
            return Ok(());
        }
        let Self { name, major, minor, .. } = self;
        let (has, had) = card;
        Err(format!(
            "the module is for {name} (compute capability {major}.{minor} {who}), the card has {has}.{had}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(name: &str, card: (u32, u32)) -> bool {
        Target::new(name, (9, 0)).unwrap().check(card).is_ok()
    }

    #[test]
    fn ordinary_targets_run_onward_and_special_ones_do_not() {
        assert!(runs("sm_80", (8, 0)) && runs("sm_80", (9, 0)) && runs("sm_80", (12, 0)));
        assert!(!runs("sm_90", (8, 9)) && runs("sm_90", (10, 0)));
        assert!(runs("sm_90a", (9, 0)) && !runs("sm_90a", (10, 0)) && !runs("sm_90a", (8, 9)));
        assert!(!runs("sm_100a", (9, 0)) && !runs("sm_120", (9, 0)));
        assert!(runs("sm_100f", (10, 3)) && !runs("sm_100f", (11, 0)));
        let text = Target::new("sm_100a", (9, 0)).unwrap().check((9, 0)).unwrap_err();
        assert_eq!(
            text,
            "the module is for sm_100a (compute capability 10.0 and no other), the card has 9.0"
        );
    }

    #[test]
    fn versions_know_their_targets() {
        assert!(Target::new("sm_90a", (7, 8)).unwrap_err().contains("needs PTX version 8.0"));
        assert!(Target::new("sm_90", (7, 8)).is_ok() && Target::new("sm_90", (7, 7)).is_err());
        assert_eq!(Target::new("", (9, 0)).unwrap_err(), "the module has no `.target`");
        assert!(Target::new("compute_90", (9, 0)).is_err() && Target::new("sm_", (9, 0)).is_err());
    }
}
