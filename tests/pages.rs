//! The pages behind mailed links, and what every answer says to browsers, proxies and curious people.

mod support;

use serde_json::json;
use support::{Person, Shop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// ASVS 3.4.1, 3.4.3 to 3.4.8.
#[actix_web::test]
async fn the_pages_load_nothing_foreign_and_are_framed_by_nobody() {
    let shop = Shop::open().await;
    for (path, kind) in [
        ("/verify", "text/html; charset=utf-8"),
        ("/reset", "text/html; charset=utf-8"),
        ("/link.js", "text/javascript; charset=utf-8"),
        ("/link.css", "text/css; charset=utf-8"),
        ("/docs/", "text/html"),
        ("/docs/swagger-initializer.js", "text/javascript"),
        ("/docs/swagger-ui.css", "text/css"),
    ] {
        let page = shop.get(path).send().await;
        assert_eq!((page.status.as_u16(), page.header("Content-Type")), (200, Some(kind)));
        let policy = page.header("Content-Security-Policy").unwrap();
        for rule in ["default-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{path} {policy}");
        }
        assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"));
        assert_eq!(page.header("Cross-Origin-Opener-Policy"), Some("same-origin"));
        assert_eq!(page.header("X-Frame-Options"), Some("DENY"));
        assert_eq!(
            page.header("Strict-Transport-Security"),
            Some("max-age=31536000; includeSubDomains"),
            "a year, and below"
        );
        let scripts = ["<style", "onclick", "<script>", "javascript:", "http://", "https://"];
        let pages = kind.starts_with("text/html");
        assert!(!pages || !scripts.iter().any(|word| page.text.contains(word)), "nothing inline: {path}");
    }
    for path in ["/verify", "/reset"] {
        let english = shop.get(path).send().await;
        let korean = shop.get(path).header("Accept-Language", "ko-KR,ko;q=0.9").send().await;
        assert!(english.text.contains(r#"lang="en""#) && korean.text.contains(r#"lang="ko""#));
    }
    shop.close().await;
}

/// ASVS 6.5.1: mail scanners open every link, with whatever method they like.
#[actix_web::test]
async fn opening_a_link_consumes_nothing() {
    let shop = Shop::open().await;
    let mina = Person::number(1);
    shop.sign_up(&mina).await;
    let letter = shop.letter(&mina.email, 1).await;
    let token = letter.token();
    assert!(letter.text.contains(&format!("/verify#token={token}")), "behind the #, which is not sent");
    for method in ["GET", "HEAD", "OPTIONS", "POST"] {
        shop.ask(method, "/verify").send().await;
        shop.ask(method, &format!("/verify?token={token}")).send().await;
    }
    assert_eq!(shop.verify(&token).await.status, 204);
    shop.close().await;
}

/// Letters come in the reader's language, in two forms.
#[actix_web::test]
async fn letters_speak_the_language_of_the_sign_up() {
    let shop = Shop::open().await;
    let (mina, jun) = (Person::number(1), Person::number(2));
    let korean = shop.post("/v1/users", &mina.words()).header("Accept-Language", "ko;q=0.9, en;q=0.1");
    assert_eq!(korean.send().await.status, 202);
    assert_eq!(shop.sign_up(&jun).await.status, 202);
    assert!(shop.letter(&mina.email, 1).await.text.contains("이메일"));
    assert!(shop.letter(&jun.email, 1).await.text.contains("e-mail"));
    shop.close().await;
}

/// ASVS 3.4.2, 4.1.4, 14.3.2.
#[actix_web::test]
async fn private_answers_are_kept_by_nobody_and_shared_with_no_other_origin() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let pair = shop.log_in(&mina).await;
    for path in ["/v1/users/me", "/v1/users/me/export", "/v1/sessions", "/v1/orders"] {
        let answer = shop.as_of(&pair, "GET", path).header("Origin", "https://evil.example").send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("Cache-Control")),
            (200, Some("no-store")),
            "{path}"
        );
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    }
    for method in ["OPTIONS", "TRACE", "PROPFIND", "PUT"] {
        let told = shop.ask(method, "/v1/sessions").header("Origin", "https://evil.example").send().await;
        assert_eq!(told.status, 405, "{method}");
        assert_eq!(told.header("Access-Control-Allow-Origin"), None);
    }
    shop.close().await;
}

/// ASVS 3.3, 3.5: a token in a header is sent by no browser unasked; there is no cookie that would be.
#[actix_web::test]
async fn no_answer_sets_a_cookie_and_no_cookie_lets_anybody_in() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let log_in = shop.try_log_in(&mina).await;
    assert_eq!(log_in.header("Set-Cookie"), None);
    let pair = support::Pair::of(&log_in);
    for name in ["access_token", "session", "token", "Authorization"] {
        let cookie = format!("{name}={}", pair.access);
        shop.get("/v1/users/me").header("Cookie", &cookie).send().await.problem(401, "unauthenticated");
    }
    let in_url = format!("/v1/users/me?access_token={}", pair.access);
    shop.get(&in_url).send().await.problem(401, "unauthenticated");
    shop.close().await;
}

/// ASVS 16.5.1: a problem tells what is wrong with the request, and nothing about us.
#[actix_web::test]
async fn a_problem_tells_nothing_about_our_insides() {
    let shop = Shop::open().await;
    let credentials = |email: &str| json!({ "email": email, "password": "' or 1=1 --" });
    for body in [
        credentials("mina'--@example.com"),
        credentials("\" or 1=1; drop table users"),
        json!({ "email": ["a"], "password": {} }),
        json!([]),
    ] {
        let told = shop.post("/v1/sessions", &body).send().await;
        assert!([401, 422].contains(&told.status.as_u16()), "{}", told.text);
        for word in ["sql", "select", "src/", "panicked", "stack", env!("CARGO_PKG_VERSION"), "1=1"] {
            assert!(!told.text.to_lowercase().contains(word), "{word}: {}", told.text);
        }
    }
    assert_eq!(shop.get("/v1/admin/users?state='%20or%201=1").bearer("x").send().await.status, 401);
    let told = shop.admin("GET", "/v1/admin/users?email=%27%20or%201%3D1").send().await;
    assert_eq!(told.invalid(), "?email");
    shop.close().await;
}

/// ASVS 16.4.1: what a stranger sends does not draw on the operator's terminal, nor on another device's list.
#[actix_web::test]
async fn control_characters_of_a_device_are_shown_to_nobody() {
    let shop = Shop::open().await;
    let mina = shop.newcomer(1).await;
    let body = mina.credentials().to_string();
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\nUser-Agent: phone\t7 {}\r\n\r\n{body}",
        body.len(),
        "x".repeat(500)
    );
    let mut stream = tokio::net::TcpStream::connect(shop.app().addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let pair = shop.log_in(&mina).await;
    let listed = shop.as_of(&pair, "GET", "/v1/sessions").send().await.ok(200);
    let device = listed["data"][1]["device"].as_str().unwrap();
    assert!(device.starts_with("phone7 ") && device.len() == 200, "{device}");
    shop.close().await;
}
