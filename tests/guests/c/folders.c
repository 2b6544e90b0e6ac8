// The working folder, and the names in the one that the first argument says, as wasi-libc sees them.
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    char folder[PATH_MAX];
    if (!getcwd(folder, sizeof folder)) return fail("getcwd");
    printf("cwd=%s\n", folder);
    if (argc < 2) return 0;
    if (chdir(argv[1])) return fail("chdir");
    if (!getcwd(folder, sizeof folder)) return fail("getcwd");
    printf("cwd=%s\n", folder);

    DIR *names = opendir(".");
    if (!names) return fail("opendir");
    for (struct dirent *item; (item = readdir(names));) printf("%s\n", item->d_name);
    closedir(names);
    return 0;
}
