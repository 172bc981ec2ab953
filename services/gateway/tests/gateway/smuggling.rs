//! A corpus of requests that two readers might take apart differently, each sent raw to a running gateway: nothing but
//! one well-formed request may reach the server, or none.

use std::io::{Read, Write};
use std::time::Duration;

use clawgress_gateway::wire::chunked::{Chunked, Piece};
use clawgress_gateway::wire::fields::{Framing, of_request};
use clawgress_gateway::wire::head::{RequestHead, end_of_head};

use crate::lab::{HOST, Lab};

/// `@` stands for the host, `#` for a good credential's header line, `~` for a request that nobody may get to see.
const CORPUS: &[(&str, &str)] = &[
    // Length and chunks.
    (
        "CL.TE",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE.CL",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n~\r\n0\r\n\r\n",
    ),
    (
        "TE.TE obfuscated by case and more",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE twice the same",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE identity before chunked",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE list",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE chunked not last",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE xchunked",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE quoted",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE with a parameter",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE empty",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE with a comma behind",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE with a tab behind the colon",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE with a vertical tab",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE with a form feed behind",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\x0c\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE with a NUL",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\0\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE with a blank before the colon",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE with a tab before the colon",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding\t: chunked\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE behind a bare LF",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3\r\nX: y\nTransfer-Encoding: chunked\r\n\r\nabc~",
    ),
    (
        "TE behind a bare CR",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3\r\nX: y\rTransfer-Encoding: chunked\r\n\r\nabc~",
    ),
    (
        "TE folded",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE in a line that begins with a blank",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n# Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "TE spelt with an underscore",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "TE in HTTP/1.0",
        "POST http://@/ HTTP/1.0\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE in HTTP/1.0 kept alive",
        "POST http://@/ HTTP/1.0\r\nHost: @\r\n#Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "TE named by Connection",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    // Lengths.
    (
        "CL.CL",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc~",
    ),
    (
        "CL twice the same",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "CL list",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3, 3\r\n\r\nabc~",
    ),
    (
        "CL with a sign",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: +3\r\n\r\nabc~",
    ),
    (
        "CL negative",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: -3\r\n\r\nabc~",
    ),
    (
        "CL hexadecimal",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 0x3\r\n\r\nabc~",
    ),
    (
        "CL with a fraction",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3.0\r\n\r\nabc~",
    ),
    (
        "CL with a blank inside",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3 4\r\n\r\nabc~",
    ),
    (
        "CL with an underscore",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 1_0\r\n\r\nabcdefghij~",
    ),
    (
        "CL empty",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length:\r\n\r\n~",
    ),
    (
        "CL too large for anybody",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 18446744073709551619\r\n\r\nabc~",
    ),
    (
        "CL with a NUL",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3\0\r\n\r\nabc~",
    ),
    (
        "CL with a blank before the colon",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length : 3\r\n\r\nabc~",
    ),
    (
        "CL folded",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length:\r\n 3\r\n\r\nabc~",
    ),
    (
        "CL named by Connection",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc~",
    ),
    (
        "CL on a GET, and more behind",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 3\r\n\r\nabc~",
    ),
    (
        "CL zero, and more behind",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 0\r\n\r\n~",
    ),
    (
        "no length, and more behind",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#\r\n~",
    ),
    (
        "fewer bytes than told",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Content-Length: 300\r\n\r\nabc",
    ),
    // Chunks.
    (
        "chunk size with 0x",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size with a sign",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size negative",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size with a blank before",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size with a blank behind",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size that overflows",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size with many zeros",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n00000000000000000003\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size empty",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk size of letters",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk line with a bare LF",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk line with a bare CR",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk data that ends with a bare LF",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n~",
    ),
    (
        "chunk data that goes on",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n~",
    ),
    (
        "chunk extension",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n",
    ),
    (
        "chunk extension with a bare LF",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3;a\n00\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk extension with a bare CR",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk extension with a NUL",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3;\0\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "chunk extension that quotes a line's end",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n3;a=\"\r\n\"\r\nabc\r\n0\r\n\r\n~",
    ),
    (
        "last chunk without its empty line",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\n~",
    ),
    (
        "last chunk of many zeros",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n000\r\n\r\n~",
    ),
    (
        "trailers that frame",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n~",
    ),
    (
        "trailers that are folded",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n~",
    ),
    (
        "trailers with a bare LF",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\nC: d\r\n\r\n~",
    ),
    (
        "trailers with a credential",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\nProxy-Authorization: Basic c21\r\nAuthorization: Basic c21\r\n\r\n",
    ),
    // Lines.
    (
        "bare LF everywhere",
        "GET http://@/ HTTP/1.1\nHost: @\n#\n\n",
    ),
    (
        "bare LF at the end of the head",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X: y\n\n~",
    ),
    (
        "a bare CR in a value",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X: a\rGET /smuggled HTTP/1.1\r\n\r\n",
    ),
    ("CR CR LF", "GET http://@/ HTTP/1.1\r\r\nHost: @\r\n#\r\n"),
    (
        "an empty line before the request",
        "\r\nGET http://@/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "blanks before the request",
        " GET http://@/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "obs-fold in a header",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X: a\r\n b\r\n\r\n",
    ),
    (
        "obs-fold with a tab",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X: a\r\n\tb\r\n\r\n",
    ),
    (
        "obs-fold before the first header",
        "GET http://@/ HTTP/1.1\r\n Host: @\r\nHost: @\r\n#\r\n",
    ),
    (
        "a NUL in a name",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X\0: a\r\n\r\n",
    ),
    (
        "a NUL in a value",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X: a\0b\r\n\r\n",
    ),
    (
        "a NUL in the target",
        "GET http://@/\0 HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "a blank before a colon",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X : a\r\n\r\n",
    ),
    (
        "a header without a colon",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X\r\n\r\n",
    ),
    (
        "a header without a name",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#: a\r\n\r\n",
    ),
    (
        "a name with a bracket",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#X[0]: a\r\n\r\n",
    ),
    (
        "tabs in the request line",
        "GET\thttp://@/\tHTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "two blanks in the request line",
        "GET  http://@/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "a blank behind the version",
        "GET http://@/ HTTP/1.1 \r\nHost: @\r\n#\r\n",
    ),
    (
        "a fourth word in the request line",
        "GET http://@/ HTTP/1.1 HTTP/1.0\r\nHost: @\r\n#\r\n",
    ),
    // Targets and hosts.
    (
        "Host is another one",
        "GET http://@/ HTTP/1.1\r\nHost: evil.example\r\n#\r\n",
    ),
    (
        "Host is another port",
        "GET http://@/ HTTP/1.1\r\nHost: @:8080\r\n#\r\n",
    ),
    (
        "Host twice",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\nHost: evil.example\r\n#\r\n",
    ),
    (
        "Host twice the same",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\nHost: @\r\n#\r\n",
    ),
    ("Host missing", "GET http://@/ HTTP/1.1\r\n#\r\n"),
    ("Host empty", "GET http://@/ HTTP/1.1\r\nHost:\r\n#\r\n"),
    (
        "Host with a user",
        "GET http://@/ HTTP/1.1\r\nHost: evil@@\r\n#\r\n",
    ),
    (
        "Host as a list",
        "GET http://@/ HTTP/1.1\r\nHost: @, evil.example\r\n#\r\n",
    ),
    (
        "Host with a path",
        "GET http://@/ HTTP/1.1\r\nHost: @/evil\r\n#\r\n",
    ),
    (
        "Host named by Connection",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\nConnection: Host\r\n#\r\n",
    ),
    (
        "Authorization named by Connection",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\nConnection: Authorization\r\nAuthorization: Basic c21\r\n#\r\n",
    ),
    (
        "Connection that is no list",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\nConnection: a b\r\n#\r\n",
    ),
    (
        "a user in the target",
        "GET http://evil:x@@/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "a fragment in the target",
        "GET http://@/\u{2}evil HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "a backslash in the target",
        "GET http://@\\evil.example/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "no host in the target",
        "GET http:///smuggled HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    ("origin form", "GET /smuggled HTTP/1.1\r\nHost: @\r\n#\r\n"),
    (
        "another scheme",
        "GET ftp://@/smuggled HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "https in absolute form",
        "GET https://@/smuggled HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    ("asterisk form", "OPTIONS * HTTP/1.1\r\nHost: @\r\n#\r\n"),
    (
        "bytes beyond ASCII in the target",
        "GET http://@/\u{e9} HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    // Versions.
    ("HTTP/0.9", "GET http://@/smuggled\r\n"),
    (
        "HTTP/0.9 with a head",
        "GET http://@/smuggled HTTP/0.9\r\nHost: @\r\n#\r\n",
    ),
    (
        "HTTP/1.0 kept alive, and more behind",
        "GET http://@/ HTTP/1.0\r\nHost: @\r\n#Connection: keep-alive\r\n\r\n~",
    ),
    ("HTTP/1.0 without a Host", "GET http://@/ HTTP/1.0\r\n#\r\n"),
    ("HTTP/1.2", "GET http://@/ HTTP/1.2\r\nHost: @\r\n#\r\n"),
    ("HTTP/2.0", "GET http://@/ HTTP/2.0\r\nHost: @\r\n#\r\n"),
    ("HTTP/1.10", "GET http://@/ HTTP/1.10\r\nHost: @\r\n#\r\n"),
    (
        "http/1.1 in small letters",
        "GET http://@/ http/1.1\r\nHost: @\r\n#\r\n",
    ),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (
        "an upgrade to h2c",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n#Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ),
    // Tunnels.
    (
        "CONNECT with a body",
        "CONNECT @:80 HTTP/1.1\r\nHost: @:80\r\n#Content-Length: 5\r\n\r\nabcde~",
    ),
    (
        "CONNECT in chunks",
        "CONNECT @:80 HTTP/1.1\r\nHost: @:80\r\n#Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n~",
    ),
    (
        "CONNECT with a request behind it",
        "CONNECT @:80 HTTP/1.1\r\nHost: @:80\r\n#\r\n~",
    ),
    (
        "CONNECT with a scheme",
        "CONNECT http://@:80 HTTP/1.1\r\nHost: @:80\r\n#\r\n~",
    ),
    (
        "CONNECT to another Host",
        "CONNECT @:80 HTTP/1.1\r\nHost: evil.example:80\r\n#\r\n~",
    ),
    (
        "CONNECT without a port",
        "CONNECT @ HTTP/1.1\r\nHost: @\r\n#\r\n~",
    ),
    // Two credentials, and what expects.
    (
        "two credentials",
        "GET http://@/ HTTP/1.1\r\nHost: @\r\n##\r\n",
    ),
    (
        "Expect something else",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "Expect twice",
        "POST http://@/ HTTP/1.1\r\nHost: @\r\n#Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "a method with a bracket",
        "GE(T http://@/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
    (
        "a method of a hundred letters",
        "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM http://@/ HTTP/1.1\r\nHost: @\r\n#\r\n",
    ),
];

const SMUGGLED: &str = "GET http://@/smuggled HTTP/1.1\r\nHost: @\r\n\r\n";

#[test]
fn nothing_but_one_well_formed_request_comes_through() {
    assert!(CORPUS.len() >= 80, "{}", CORPUS.len());
    Lab::run(|lab| {
        let mut passed = 0;
        for (name, form) in CORPUS {
            let request = form
                .replace('~', SMUGGLED)
                .replace("@@", "@\u{1}")
                .replace('@', HOST)
                .replace(&format!("{HOST}\u{1}"), &format!("@{HOST}"))
                .replace('#', &lab.credential())
                .replace('\u{2}', "#");
            let answer = send(lab, request.as_bytes());
            lab.idle();
            let heard = lab.heard_now();
            let requests: usize = heard.iter().map(|bytes| judge(name, bytes)).sum();
            assert!(requests <= 1, "{name}: {heard:?}");
            let first = answer.split(' ').nth(1).unwrap_or("none");
            // What did not reach the server was refused in words, or nothing was said to a tunnel that was cut.
            assert!(
                requests == 1 || first != "200" || form.starts_with("CONNECT"),
                "{name}: {answer}"
            );
            passed += requests;
        }
        // The corpus is no corpus if nothing gets through at all.
        assert!(
            passed >= 8,
            "{passed} of {} reached the server",
            CORPUS.len()
        );
    });
}

#[test]
fn very_long_forms_are_refused_before_they_are_held() {
    Lab::run(|lab| {
        let credential = lab.credential();
        let long = "a".repeat(70_000);
        let many = "X: y\r\n".repeat(500);
        for request in [
            format!("GET http://{HOST}/{long} HTTP/1.1\r\nHost: {HOST}\r\n{credential}\r\n"),
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}X: {long}\r\n\r\n"),
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}{long}: x\r\n\r\n"),
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}{many}\r\n"),
            format!(
                "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}Transfer-Encoding: chunked\r\n\r\n3;{long}\r\nabc\r\n0\r\n\r\n"
            ),
            format!(
                "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}Transfer-Encoding: chunked\r\n\r\n0\r\nA: {long}\r\n\r\n"
            ),
        ] {
            let answer = send(lab, request.as_bytes());
            // A server may answer before a body; nothing of that one comes to it.
            assert!(
                request.starts_with("POST") || answer.starts_with("HTTP/1.1 400 "),
                "{answer}"
            );
        }
        lab.idle();
        let heard = lab.heard_now();
        assert!(heard.iter().all(|bytes| bytes.len() < 1024), "{heard:?}");
    });
}

/// What was answered before the connection ended, or a moment passed in silence.
fn send(lab: &Lab, request: &[u8]) -> String {
    let mut agent = lab.open();
    agent
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    // It may be refused half way.
    let _ = agent.write_all(request);
    let mut answer = Vec::new();
    let _ = agent.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// How many whole requests these bytes are; a body in part is of a request that was cut.
fn judge(name: &str, bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains("smuggled"), "{name}: {text}");
    assert!(
        !text.to_ascii_lowercase().contains("proxy-auth"),
        "{name}: {text}"
    );
    let mut rest = bytes;
    let mut requests = 0;
    while !rest.is_empty() {
        let end = end_of_head(rest, 0);
        let end = end.unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        let end = end.unwrap_or_else(|| panic!("{name}: half a head: {text}"));
        let head = RequestHead::parse(&rest[..end])
            .unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        let fields = of_request(&head).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        assert_eq!(fields.host, Some(HOST.as_bytes()), "{name}: {text}");
        assert!(!head.target.contains("smuggled"), "{name}: {text}");
        requests += 1;
        rest = &rest[end..];
        match fields.framing {
            Framing::None | Framing::UntilClose => {}
            Framing::Length(length) => rest = &rest[rest.len().min(length as usize)..],
            Framing::Chunked => {
                let mut chunked = Chunked::default();
                loop {
                    match chunked.next(&mut rest) {
                        Ok(Some(Piece::End(trailers))) => {
                            assert_eq!(trailers, b"\r\n", "{name}: {text}");
                            break;
                        }
                        Ok(Some(Piece::Data(_))) => {}
                        Ok(None) => return requests,
                        Err(error) => panic!("{name}: {error}: {text}"),
                    }
                }
            }
        }
    }
    requests
}
