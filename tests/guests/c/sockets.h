// TCP and name lookup over whatever an engine has added to WASI 0.1 for that: `exchange IP:PORT` listens there, connects to
// itself and sends a line both ways; `resolve NAME` prints an IPv4 address. Each function gives 0 or a WASI error.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

static int tcp_listen(uint16_t port, int *fd);
static int tcp_accept(int listener, int *fd);
// At 127.0.0.1, as is the listener.
static int tcp_connect(uint16_t port, int *fd);
static int resolve(const char *name, uint8_t address[4]);

static int fail(const char *what, int error) {
    printf("error: %s: %s\n", what, strerror(error));
    return 1;
}

static int pass(int from, int to, const char *text) {
    char got[64];
    size_t length = strlen(text);
    if (send(from, text, length, 0) != (ssize_t)length) return fail("send", errno);
    size_t have = 0;
    while (have < length) {
        ssize_t now = recv(to, got + have, sizeof got - have, 0);
        if (now <= 0) return fail("receive", errno);
        have += (size_t)now;
    }
    printf("%.*s", (int)have, got);
    return 0;
}

static int exchange(const char *address) {
    const char *colon = strrchr(address, ':');
    uint16_t port = (uint16_t)atoi(colon ? colon + 1 : "0");
    int listener, client, server, error;
    if ((error = tcp_listen(port, &listener))) return fail("listen", error);
    if ((error = tcp_connect(port, &client))) return fail("connect", error);
    if ((error = tcp_accept(listener, &server))) return fail("accept", error);
    if (pass(client, server, "to the server")) return 1;
    printf(", ");
    if (pass(server, client, "to the client")) return 1;
    printf("\n");
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "exchange")) return exchange(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "resolve")) {
        uint8_t a[4];
        int error = resolve(argv[2], a);
        if (error) return fail("resolve", error);
        printf("%d.%d.%d.%d\n", a[0], a[1], a[2], a[3]);
        return 0;
    }
    puts("error: exchange IP:PORT or resolve NAME");
    return 1;
}
