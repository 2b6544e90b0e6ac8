// WAMR's sockets. Source: wasm-micro-runtime, core/iwasm/libraries/lib-socket/inc/wasi_socket_ext.h.
#include "sockets.h"

typedef struct {
    uint32_t kind; // 0: IPv4
    struct {
        uint8_t ip[4];
        uint16_t port; // in the host's order
        uint8_t of_ipv6[12];
    } address;
} Address;

typedef struct {
    Address address;
    int32_t type;
} Found;

typedef struct {
    int32_t type;
    uint32_t family;
    uint8_t enabled;
} Hints;

enum { INET4 = 0, STREAM = 1, NO_POOL = -1 };

WASI(sock_open) int sock_open(int pool, uint32_t family, uint32_t type, int *fd);
WASI(sock_bind) int sock_bind(int fd, const Address *address);
WASI(sock_listen) int sock_listen(int fd, uint32_t backlog);
WASI(sock_accept) int sock_accept(int fd, uint32_t flags, int *accepted);
WASI(sock_connect) int sock_connect(int fd, const Address *address);
WASI(sock_addr_resolve)
int sock_addr_resolve(const char *host, const char *service, const Hints *hints, Found *found, uint32_t room,
                      uint32_t *available);

static Address local(uint16_t port) { return (Address){.address = {.ip = {127, 0, 0, 1}, .port = port}}; }

static int tcp_listen(uint16_t port, int *fd) {
    Address address = local(port);
    int error = sock_open(NO_POOL, INET4, STREAM, fd);
    if (!error) error = sock_bind(*fd, &address);
    return error ? error : sock_listen(*fd, 1);
}

static int tcp_accept(int listener, int *fd) { return sock_accept(listener, 0, fd); }

static int tcp_connect(uint16_t port, int *fd) {
    Address address = local(port);
    int error = sock_open(NO_POOL, INET4, STREAM, fd);
    return error ? error : sock_connect(*fd, &address);
}

static int resolve(const char *name, uint8_t address[4]) {
    Hints hints = {.type = STREAM, .family = INET4, .enabled = 1};
    Found found[4];
    uint32_t available = 0;
    int error = sock_addr_resolve(name, "", &hints, found, 4, &available);
    if (error) return error;
    if (!available) return ENOENT;
    memcpy(address, found[0].address.address.ip, 4);
    return 0;
}
