//! `numbered!`: an enum whose values are the numbers on the wire, for statuses, types and options.

/// An enum whose values are the numbers on the wire.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[$variant_doc])* $variant = $value,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The value of this number.
            pub fn from_code(code: i64) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| i64::from(value.code()) == code)
            }
        }

        impl std::fmt::Display for $name {
            /// The number, as it stands in an element.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.code().fmt(f)
            }
        }
    };
}
