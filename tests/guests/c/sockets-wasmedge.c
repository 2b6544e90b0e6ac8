// WasmEdge's sockets. Source: wasmedge_wasi_socket, src/socket.rs.
#include "sockets.h"

typedef struct {
    const uint8_t *bytes;
    uint32_t size;
} Address;

typedef struct {
    uint8_t family;
    uint32_t size;
    uint8_t *bytes; // two of the port, then the address
} SocketAddress;

typedef struct Info {
    uint16_t flags;
    uint8_t family;
    uint8_t type;
    uint8_t protocol;
    uint32_t address_size;
    SocketAddress *address;
    char *name;
    uint32_t name_size;
    struct Info *next;
} Info;

enum { INET4 = 1, STREAM = 2, TCP = 1 };

WASI(sock_open) int sock_open(uint32_t family, uint32_t type, int *fd);
WASI(sock_bind) int sock_bind(int fd, const Address *address, uint32_t port);
WASI(sock_listen) int sock_listen(int fd, uint32_t backlog);
WASI(sock_accept) int sock_accept(int fd, int *accepted);
WASI(sock_connect) int sock_connect(int fd, const Address *address, uint32_t port);
WASI(sock_getaddrinfo)
int sock_getaddrinfo(const char *node, uint32_t node_size, const char *service, uint32_t service_size, const Info *hints,
                     Info **found, uint32_t room, uint32_t *available);

static const uint8_t LOCAL[4] = {127, 0, 0, 1};
static const Address ADDRESS = {LOCAL, sizeof LOCAL};

static int tcp_listen(uint16_t port, int *fd) {
    int error = sock_open(INET4, STREAM, fd);
    if (!error) error = sock_bind(*fd, &ADDRESS, port);
    return error ? error : sock_listen(*fd, 1);
}

static int tcp_accept(int listener, int *fd) { return sock_accept(listener, fd); }

static int tcp_connect(uint16_t port, int *fd) {
    int error = sock_open(INET4, STREAM, fd);
    return error ? error : sock_connect(*fd, &ADDRESS, port);
}

static int resolve(const char *name, uint8_t address[4]) {
    uint8_t bytes[26];
    char canonical[64];
    SocketAddress socket_address = {.family = INET4, .size = 14, .bytes = bytes};
    Info hints = {.family = INET4, .type = STREAM, .protocol = TCP};
    Info info = hints, *found = &info;
    info.address = &socket_address;
    info.name = canonical;
    uint32_t available = 0;
    // Both sizes count the NUL.
    int error = sock_getaddrinfo(name, strlen(name) + 1, "80", 3, &hints, &found, 1, &available);
    if (error) return error;
    if (!available) return ENOENT;
    memcpy(address, bytes + 2, 4);
    return 0;
}
