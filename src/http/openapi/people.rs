//! What is particular to the doors of people: accounts, sessions, and the pages behind mailed links.

use serde_json::{Value, json};

use super::doors::{Door, body, cursor, header, idempotency_key, limit, told};
use super::webhooks;
use crate::dpop::PROOF_BYTES_MAX;
use crate::http::problem::Code;

const SESSION_ID: &str = "^sess_[0-7][0-9a-hjkmnp-tv-z]{25}$";

const STORE: &[Code] = &[Code::OwnerUnavailable];
const HASH: &[Code] =
    &[Code::NotFound, Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown, Code::RateLimited];
const LETTER: &[Code] = &[Code::Overloaded, Code::OwnerUnavailable, Code::OutcomeUnknown, Code::RateLimited];
const LINK: &[Code] = &[
    Code::LinkExpired,
    Code::PhoneTaken,
    Code::Overloaded,
    Code::OwnerUnavailable,
    Code::OutcomeUnknown,
    Code::RateLimited,
];
const LOG_IN: &[Code] = &[
    Code::InvalidDpopProof,
    Code::Unauthenticated,
    Code::EmailNotVerified,
    Code::Forbidden,
    Code::Overloaded,
    Code::OwnerUnavailable,
    Code::OutcomeUnknown,
    Code::RateLimited,
];
const REFRESH: &[Code] = &[
    Code::InvalidDpopProof,
    Code::Unauthenticated,
    Code::OwnerUnavailable,
    Code::OutcomeUnknown,
    Code::RateLimited,
];
const SESSION: &[Code] = &[Code::OwnerUnavailable, Code::OutcomeUnknown];
const REINSTATE: &[Code] = &[Code::OrderStateConflict, Code::OwnerUnavailable, Code::OutcomeUnknown];

/// The description of the door with this name.
#[rustfmt::skip]
pub fn of(door: &str) -> Door {
    match door {
        "user::sign_up" => Door {
            parameters: vec![language()],
            body: body("SignUpRequest", sign_up_example()),
            refuses: LETTER,
            ..told("people", "Sign up", "The answer is the same whether the address is known or not; a letter tells its \
                owner. The link in it is good for 24 hours. `Accept-Language` chooses the language, \
                Korean or English.")
        }
        .gives(202, "A letter is on its way.", "Accepted", Value::Null),
        "user::verify" => Door {
            body: body("VerifyRequest", json!({ "token": "verify_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" })),
            refuses: LINK,
            ..told("people", "Prove an address", "With the token of the link. Good for one use; who sends \
                the token of a sign-up again within the 24 hours is answered as the first time, as long as the address is theirs and the account \
                is not suspended, and nothing is done. One that is tried within a day of its expiry is answered with another letter, if the \
                account still waits for it and the address has room for one: three an hour. Where it has none the same link brings it later. \
                An account waits for a day behind its last link.")
        }
        .gives_nothing(204, "It is proved."),
        "user::resend" => Door { body: email_body(), refuses: LETTER, ..told("people", "Another letter", "If there is an \
            account that waits for it. The link in it is good for 24 hours; none is sent that would be good for longer than six days after \
            the sign-up.") }
            .gives(202, "The same for every address.", "Accepted", Value::Null),
        "user::forgot" => Door { body: email_body(), refuses: LETTER, ..told("people", "Forgotten password", "Sends a link \
            that is good for 30 minutes, if the address has an account.") }
            .gives(202, "The same for every address.", "Accepted", Value::Null),
        "user::reset" => Door {
            body: body("ResetRequest", json!({ "token": "reset_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "new_password": "five foxes fly far" })),
            refuses: LINK,
            ..told("people", "Reset the password", "With the token of the link. Good for one use; every session ends.")
        }
        .gives_nothing(204, "The new password counts."),
        "user::me" => Door { refuses: &[Code::NotFound, Code::OwnerUnavailable], ..told("people", "One's profile", "What the account says of its owner.") }
            .gives(200, "The profile.", "ProfileShown", Value::Null),
        "user::change" => Door {
            body: body("ProfilePatch", json!({ "name": "Mina Kim", "phone": "010-9876-5432" })),
            refuses: &[Code::PhoneTaken, Code::NotFound, Code::OwnerUnavailable, Code::OutcomeUnknown, Code::RateLimited],
            ..told("people", "Change the profile", "What is left out stays. Sixty times an hour.")
        }
        .gives(200, "The profile as it is now.", "ProfileShown", Value::Null),
        "user::change_password" => Door {
            body: body("PasswordRequest", json!({ "current_password": "four foxes fly far", "new_password": "five foxes fly far" })),
            refuses: HASH,
            ..told("people", "Change the password", "All other sessions end.")
        }
        .gives_nothing(204, "It is changed."),
        "user::change_email" => Door {
            body: body("NewEmailRequest", json!({ "email": "mina.kim@example.com", "password": "four foxes fly far" })),
            refuses: HASH,
            ..told("people", "Change the address", "Both addresses are told; the new one counts once its link was followed. \
                Then every session ends. Whoever has not heard the answer may ask again: of the same address within ten minutes no other \
                letter is written, and the link stays good.")
        }
        .gives(202, "The same for every address.", "Accepted", Value::Null),
        "user::export" => Door {
            refuses: &[Code::NotFound, Code::Overloaded, Code::OwnerUnavailable, Code::RateLimited],
            ..told("people", "All of one's data", "Profile, sessions, orders, payments, refunds, and what the trail says of the account, the newest 5,000 \
                entries of it. Only within 15 minutes of a log-in: a refresh does not count. At most five times an hour, one at a time.")
        }
        .gives(200, "All of it.", "Export", Value::Null),
        "user::erase" => Door {
            body: body("EraseRequest", json!({ "password": "four foxes fly far" })),
            refuses: HASH,
            ..told("people", "Delete the account", "Personal data is erased, what is held is given back, orders stay without \
                a name. Address and number are free again.")
        }
        .gives_nothing(204, "It is gone."),
        "session::log_in" => Door {
            parameters: vec![
                header("User-Agent", false, "What the device is called in the list of sessions."),
                dpop("With it the session is bound to the key that signed it: only whoever has that refreshes it. `bound` says whether it \
                    has arrived."),
            ],
            body: body("LogInRequest", json!({ "email": "mina@example.com", "password": "four foxes fly far" })),
            refuses: LOG_IN,
            ..told("sessions", "Log in", "A wrong password and an unknown address are the same answer.")
        }
        .gives(201, "Tokens.", "TokensShown", Value::Null)
        .with_header(201, "Cache-Control", "`no-store`."),
        "session::refresh" => Door {
            parameters: vec![dpop("A session that was opened with one wants one of the same key: without it the token is void, and \
                nothing becomes of it. Any other session goes on as it was, and is bound by none.")],
            body: body("RefreshRequest", json!({ "refresh_token": "sess_01h455vb4pex5vsknk084sn02q_AAAA.BBBB" })),
            refuses: REFRESH,
            ..told("sessions", "Stay logged in", "A new pair; the old refresh token dies. Whoever did not hear the answer may \
                ask again with the same token within ten seconds. Later, or with an older one, the session ends.")
        }
        .gives(200, "The new pair.", "TokensShown", Value::Null)
        .with_header(200, "Cache-Control", "`no-store`."),
        "session::list" => Door {
            parameters: vec![limit(), cursor(SESSION_ID)],
            refuses: STORE,
            ..told("sessions", "Where one is logged in", "Newest first.")
        }
            .gives(200, "The sessions.", "SessionPage", Value::Null),
        "session::end" => Door { refuses: SESSION, ..told("sessions", "Log a device out", "Its tokens are refused at once.") }
            .gives_nothing(204, "It is logged out."),
        "session::end_current" => Door { refuses: SESSION, ..told("sessions", "Log out", "This device.") }
            .gives_nothing(204, "It is logged out."),
        "session::end_all" => Door { refuses: SESSION, ..told("sessions", "Log out everywhere", "Every device.") }
            .gives_nothing(204, "They are logged out."),
        "page::verify" => page("The page behind a verification link"),
        "page::reset" => page("The page behind a reset link"),
        "page::script" => told("people", "What the pages do", "The script of both.").gives_file("text/javascript", "\"use strict\";"),
        "page::style" => told("people", "What the pages look like", "The style of both.").gives_file("text/css", "body { margin: 0 }"),
        "user::suspend" => Door { parameters: vec![idempotency_key(false)], refuses: SESSION, ..told("administration", "Keep somebody out", "Every session ends, none begins. \
            Tokens that were signed offline end with them, whatever becomes of the account; an id without an account may have such as \
            well. Whether there was somebody to keep out is told by the answer: 204, or 200.") }
            .gives_nothing(204, "They are out.")
            .gives(200, "Nobody is kept out. No account has this id (see that it is the right one), or it has yet to be proved, or was \
                deleted. Tokens that were signed for it offline have ended.", "NobodySwitched", Value::Null),
        "user::reinstate" => Door { parameters: vec![idempotency_key(false)], refuses: REINSTATE, ..told("administration", "Let somebody in again", "Undoes a suspension; what it has \
            ended stays ended. Without an account nothing is to be undone: tokens that are signed from now on are good.") }
            .gives_nothing(204, "They may log in.")
            .gives(200, "Nobody is let in: no account has this id. See that it is the right one.", "NobodySwitched", Value::Null),
        _ => webhooks::of(door),
    }
}

/// What it is for is told by the door.
fn dpop(about: &str) -> Value {
    let what = "A proof of a key (DPoP, RFC 9449): a compact JWS with ES256 or Ed25519 for this method and address, of the last minute.";
    let word = "[A-Za-z0-9_-]+";
    json!({
        "name": "DPoP", "in": "header", "required": false, "description": format!("{what} {about}"),
        "schema": { "type": "string", "maxLength": PROOF_BYTES_MAX, "pattern": format!("^{word}[.]{word}[.]{word}$") },
    })
}

fn language() -> Value {
    header("Accept-Language", false, "The language to be spoken to in: Korean or English.")
}

fn page(summary: &'static str) -> Door {
    let about = "Opening it does nothing; its button does.";
    Door { parameters: vec![language()], ..told("people", summary, about) }.gives_html()
}

fn email_body() -> Option<super::doors::Body> {
    body("EmailRequest", json!({ "email": "mina@example.com" }))
}

fn sign_up_example() -> Value {
    json!({
        "email": "mina@example.com",
        "password": "four foxes fly far",
        "name": "Mina Park",
        "phone": "010-1234-5678",
        "address": { "line1": "Teheran-ro 152", "city": "Seoul", "postal_code": "06236", "country": "KR" },
    })
}
