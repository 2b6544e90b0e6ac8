//! Answers to `401 Unauthorized`: Basic, or a token from the server that the registry names.
//!
//! <https://distribution.github.io/distribution/spec/auth/>

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
};

use docker_credential::DockerCredential;
use http_auth::ChallengeRef;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};

use super::{
    Error,
    body::bounded,
    credentials,
    endpoint::Endpoint,
    error::{innermost, readable, refusal},
};

/// A token server's answer is a token and little more.
const MAX_TOKEN: u64 = 1 << 20;

const NOT_ACCEPTED: &str = "; the credential that Docker has for it is not accepted";
const NOT_ALLOWED: &str = "; the account that Docker has for it may not do this";

/// What goes into the `Authorization` header of each request, once the registry asked for it.
#[derive(Debug)]
pub(super) struct Auth {
    registry: String,
    /// What a token is to allow, such as `repository:library/hello:pull`.
    scopes: Vec<String>,
    header: RefCell<Option<HeaderValue>>,
    presented: Cell<&'static str>,
    /// Docker's configuration.
    config: Option<PathBuf>,
}

impl Auth {
    pub(super) fn new(registry: &str, scopes: Vec<String>) -> Self {
        Self {
            registry: registry.to_owned(),
            scopes,
            header: RefCell::new(None),
            presented: Cell::new(""),
            config: credentials::config_path(),
        }
    }

    /// The header's value, if one is known.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        self.header.borrow().clone()
    }

    /// What to add to a refusal that came in spite of the header; empty if we had no name to give.
    pub(super) fn presented(&self) -> &'static str {
        self.presented.get()
    }

    #[cfg(test)]
    pub(super) fn set(&self, header: HeaderValue) {
        *self.header.borrow_mut() = Some(header);
    }

    #[cfg(test)]
    pub(super) fn use_config(&mut self, path: PathBuf) {
        self.config = Some(path);
    }

    /// Gets what the registry asked for. `used` is the header that it didn't like.
    ///
    /// # Errors
    /// [`Error::Denied`] if there is nothing else to try, and whatever keeps the token server from answering.
    pub(super) async fn answer(
        &self,
        endpoint: &Endpoint,
        operation: &str,
        refused: &Response,
        used: Option<&HeaderValue>,
    ) -> Result<(), Error> {
        if self.header().as_ref() != used {
            // Another request was first.
            return Ok(());
        }
        let denied = |why: &str| Error::Denied {
            registry: self.registry.clone(),
            operation: operation.to_owned(),
            why: why.to_owned(),
        };
        let texts: Vec<String> = refused
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let challenges: Vec<ChallengeRef<'_>> =
            texts.iter().filter_map(|text| http_auth::parse_challenges(text).ok()).flatten().collect();
        let named = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        let header = if let Some(bearer) = named("bearer") {
            self.token(endpoint, operation, bearer).await?
        } else if named("basic").is_some() {
            match credentials::find(&self.registry, self.config.as_deref())? {
                Some(DockerCredential::UsernamePassword(..)) if used.is_some() => return Err(denied(NOT_ACCEPTED)),
                Some(DockerCredential::UsernamePassword(user, password)) => {
                    self.presented.set(NOT_ACCEPTED);
                    basic(&endpoint.http, user, password)
                }
                Some(DockerCredential::IdentityToken(_)) => {
                    return Err(denied("; it asks for a password, and Docker has a token for it"));
                }
                None => return Err(denied("")),
            }
        } else {
            return Err(denied("; it asks for an authentication that Lighter doesn't know"));
        };
        *self.header.borrow_mut() = header;
        Ok(())
    }

    /// Asks the server that the challenge names for a token.
    async fn token(
        &self,
        endpoint: &Endpoint,
        operation: &str,
        challenge: &ChallengeRef<'_>,
    ) -> Result<Option<HeaderValue>, Error> {
        let nonsense = |what: String| Error::Nonsense { operation: operation.to_owned(), what };
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").unwrap_or_default();
        let realm = Url::parse(&realm)
            .map_err(|_| nonsense(format!("names a token server that is none: {:?}", readable(&realm))))?;
        let server = realm.host_str().unwrap_or_default().to_owned();
        if !endpoint.is_confidential(&realm) {
            return Err(nonsense(format!("names a token server without TLS, {server}; --plain-http trusts it")));
        }
        let mut scopes = self.scopes.clone();
        scopes.extend(parameter("scope").filter(|scope| !scopes.contains(scope)));
        let service = parameter("service");
        let credential = credentials::find(&self.registry, self.config.as_deref())?;
        let has_credential = credential.is_some();
        let request = match credential {
            Some(DockerCredential::IdentityToken(token)) => {
                let mut form = vec![
                    ("grant_type", "refresh_token".to_owned()),
                    ("client_id", "lighter".to_owned()),
                    ("refresh_token", token),
                    ("scope", scopes.join(" ")),
                ];
                form.extend(service.map(|service| ("service", service)));
                endpoint.http.post(realm).form(&form)
            }
            credential => {
                let mut query: Vec<_> = scopes.into_iter().map(|scope| ("scope", scope)).collect();
                query.extend(service.map(|service| ("service", service)));
                let request = endpoint.http.get(realm).query(&query);
                match credential {
                    Some(DockerCredential::UsernamePassword(user, password)) => {
                        request.basic_auth(user, Some(password))
                    }
                    _ => request,
                }
            }
        };
        let get_token = format!("get a token for {} from {server}", self.registry);
        let broken = |error: reqwest::Error| Error::BrokenOff { operation: get_token.clone(), why: innermost(&error) };
        let response = request.timeout(super::ANSWERS_WITHIN).send().await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => (),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let why = if has_credential { NOT_ACCEPTED } else { "" };
                return Err(Error::Denied {
                    registry: self.registry.clone(),
                    operation: operation.to_owned(),
                    why: why.to_owned(),
                });
            }
            _ => return Err(refusal(&self.registry, &get_token, response).await),
        }
        let too_much = || nonsense("has a token server that answers more than a token".to_owned());
        let body = bounded(response, MAX_TOKEN).await.map_err(broken)?.ok_or_else(too_much)?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| nonsense("has a token server that answers nonsense".to_owned()))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| nonsense("has a token server that gives no token".to_owned()))?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| nonsense("has a token server whose token is no header value".to_owned()))?;
        header.set_sensitive(true);
        self.presented.set(if has_credential { NOT_ALLOWED } else { "" });
        Ok(Some(header))
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// As reqwest would write the header.
fn basic(http: &Client, user: String, password: String) -> Option<HeaderValue> {
    let request = http.get("http://localhost/").basic_auth(user, Some(password)).build().ok()?;
    request.headers().get(AUTHORIZATION).cloned()
}
