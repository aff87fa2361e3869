/* getent for a C library that comes without one: `lookup ahostsv4|ahostsv6|hosts NAME`, an address (and name) a line.
 * Exits with 2 where nothing is found, as getent does. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int
main(int count, char **words)
{
    if (count != 3)
        return 1;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    hints.ai_family = strcmp(words[1], "ahostsv4") == 0 ? AF_INET : strcmp(words[1], "ahostsv6") == 0 ? AF_INET6 : 0;
    if (getaddrinfo(words[2], NULL, &hints, &found) != 0)
        return 2;
    for (struct addrinfo *each = found; each != NULL; each = each->ai_next) {
        char address[64], name[1025] = "";
        int flags = strcmp(words[1], "hosts") == 0 ? NI_NAMEREQD : NI_NUMERICHOST;
        if (getnameinfo(each->ai_addr, each->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) != 0 ||
            getnameinfo(each->ai_addr, each->ai_addrlen, name, sizeof name, NULL, 0, flags) != 0)
            return 2;
        printf("%s %s\n", address, flags == NI_NAMEREQD ? name : "");
    }
    return 0;
}
