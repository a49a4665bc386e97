//! What backups are sealed with: keys of their own, so that a backup ends with its key, wherever copies of it are.

use super::{ConfigError, Layers, MasterKeys, Profile};

#[derive(Debug, Clone)]
pub struct Backups {
    /// The newest seals, each opens what it has sealed. `None`: what is taken is not sealed.
    pub keys: Option<MasterKeys>,
    /// In production, and where there are keys, as well.
    may_be_plain: bool,
}

impl Backups {
    /// Every setting at its default.
    pub(super) fn development() -> Backups {
        Backups { keys: None, may_be_plain: false }
    }

    pub(super) fn read(layers: &Layers) -> Result<Backups, ConfigError> {
        Ok(Backups {
            keys: layers.text("backup_keys").map(|_| layers.parsed("backup_keys")).transpose()?,
            may_be_plain: layers.parsed("allow_plain_backups")?,
        })
    }

    /// What production does not forgive. Only who takes a backup needs keys, and a shop that sells does without.
    pub(super) fn wrongs(&self, master_keys: Option<&MasterKeys>) -> [(bool, &'static str); 2] {
        let keys = self.keys.as_ref();
        let is_master_key = keys.zip(master_keys).is_some_and(|(keys, master)| keys.holds_one_of(master));
        [
            (
                keys.is_some_and(MasterKeys::holds_a_sample),
                "a key of STOCKADE_BACKUP_KEYS looks like a sample; `openssl rand -hex 32` makes a good one",
            ),
            (
                is_master_key,
                "a key of STOCKADE_BACKUP_KEYS is one of STOCKADE_MASTER_KEY: it is to be destroyed, and the shop would be with it; \
                 `openssl rand -hex 32` makes a good one",
            ),
        ]
    }

    /// What a backup is sealed with that is taken now, if anything. Production wants it said where it is with nothing.
    pub fn sealed_with(&self, profile: Profile) -> Result<Option<&MasterKeys>, ConfigError> {
        match &self.keys {
            None if profile == Profile::Production && !self.may_be_plain => Err(ConfigError::Production(
                "production seals its backups: set STOCKADE_BACKUP_KEYS (`openssl rand -hex 32` makes a good one), or say \
                 STOCKADE_ALLOW_PLAIN_BACKUPS=true where whatever they are kept on is sealed, and its key is destroyed in time",
            )),
            keys => Ok(keys.as_ref()),
        }
    }

    /// Whether one that is not sealed is restored. Where backups are sealed it would be somebody else's, or of before that.
    pub fn takes_plain(&self, profile: Profile) -> bool {
        self.may_be_plain || (self.keys.is_none() && profile != Profile::Production)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Backups, String> {
        let variables =
            pairs.iter().map(|(key, value)| (format!("STOCKADE_{}", key.to_uppercase()), value.to_string()));
        let layers = Layers::of(None, variables, []).unwrap();
        Backups::read(&layers).map_err(|error| error.to_string())
    }

    /// Thirty-two bytes that stand nowhere in the repository.
    fn made_up(what: &str) -> String {
        let half = |end: &str| xxhash_rust::xxh3::xxh3_128(format!("{what}{end}").as_bytes());
        format!("{:032x}{:032x}", half("left"), half("right"))
    }

    #[test]
    fn production_seals_its_backups_or_says_that_it_does_not() {
        let takes = |backups: &Backups, profile| backups.sealed_with(profile).map(|keys| keys.is_some());
        let plain = read(&[]).unwrap();
        assert_eq!(takes(&plain, Profile::Development).ok(), Some(false));
        let told = takes(&plain, Profile::Production).unwrap_err().to_string();
        assert!(
            told.contains("STOCKADE_BACKUP_KEYS") && told.contains("STOCKADE_ALLOW_PLAIN_BACKUPS"),
            "{told}"
        );
        let admitted = read(&[("allow_plain_backups", "true")]).unwrap();
        assert_eq!(takes(&admitted, Profile::Production).ok(), Some(false));
        let sealed = read(&[("backup_keys", &format!("{},{}", made_up("new"), made_up("former")))]).unwrap();
        for profile in [Profile::Development, Profile::Production] {
            assert_eq!(takes(&sealed, profile).ok(), Some(true));
        }
        assert!(read(&[("allow_plain_backups", "perhaps")]).is_err());
    }

    #[test]
    fn where_backups_are_sealed_none_is_restored_that_is_not_unless_somebody_says_so() {
        let key = made_up("one");
        let (plain, sealed) = (read(&[]).unwrap(), read(&[("backup_keys", &key)]).unwrap());
        let admitted = read(&[("backup_keys", &key), ("allow_plain_backups", "true")]).unwrap();
        let takes = |profile| [&plain, &sealed, &admitted].map(|backups| backups.takes_plain(profile));
        assert_eq!(takes(Profile::Development), [true, false, true]);
        assert_eq!(takes(Profile::Production), [false, false, true]);
    }

    #[test]
    fn a_key_of_backups_comes_from_chance_and_is_no_master_key() {
        let (one, other, master) = (made_up("one"), made_up("other"), made_up("master"));
        let master_keys = format!("{other},{master}").parse::<MasterKeys>().unwrap();
        let wrong = |keys: &str| {
            let backups = read(&[("backup_keys", keys)]).unwrap();
            let wrongs = backups.wrongs(Some(&master_keys)).into_iter();
            wrongs.filter(|(wrong, _)| *wrong).map(|(_, why)| why).collect::<String>()
        };
        assert_eq!(wrong(&one), "");
        for sample in ["00".repeat(32), format!("{one},{}", "ab".repeat(32))] {
            assert!(wrong(&sample).contains("STOCKADE_BACKUP_KEYS looks like a sample"), "{sample}");
        }
        assert!(wrong(&format!("{one},{master}")).contains("is one of STOCKADE_MASTER_KEY"));
        let told = read(&[("backup_keys", &one[1..])]).unwrap_err();
        assert!(
            told.contains("backup_keys") && told.contains("32 bytes") && !told.contains(&one[1..]),
            "{told}"
        );
    }
}
