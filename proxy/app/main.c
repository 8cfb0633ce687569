/* What:    the process: command line, configuration, exit status. Everything else hangs from struct app. */
#include <stdio.h>

#include "proxy/app/app.h"
#include "proxy/app/options.h"
#include "proxy/database/schema.h"
#include "proxy/database/store.h"
#include "proxy/net/tls.h"

/* The files that the tls section names, as they are now. */
static enum err check_tls(const char *file, const struct config_tls *config)
{
    char text[TLS_TEXT];
    struct tls *tls = NULL;
    enum err err = tls_create(config, &tls, text);
    tls_destroy(&tls);
    if (text[0] != '\0') {
        fprintf(stderr, "%s: %s%s\n", file, err == OK ? "warning: " : "", text);
    }
    return err;
}

/* 0 when all is well, 1 when the database could not be reached, 2 when a table does not fit. */
static int status_of(enum err err)
{
    return err == OK ? 0 : err == ERR_CONFIG ? 2 : 1;
}

int main(int argc, char **argv)
{
    struct options options;
    if (options_parse(argc, argv, &options) != OK) {
        return 2;
    }
    if (options.action == ACTION_HELP) {
        options_print_help();
        return 0;
    }
    if (options.action == ACTION_VERSION) {
        puts("outrigger " OUTRIGGER_VERSION);
        return 0;
    }
    struct config *config = NULL;
    enum err err = options.config != NULL ? config_load(options.config, stderr, &config)
                                          : config_plain(options.pool, options.listen, stderr, &config);
    if (err == OK && config->tls != NULL) {
        err = check_tls(options.config, config->tls);
    }
    if (err != OK) {
        config_destroy(&config);
        fprintf(stderr, "outrigger: the configuration is not usable\n");
        return 2;
    }
    config_warn(config, options.config != NULL ? options.config : "--pool", stderr);
    int status = 0;
    if (options.action == ACTION_INIT_DATABASE) {
        status = status_of(schema_init(config, &store_mysql, stdout));
    } else if (options.action == ACTION_CHECK || options.action == ACTION_CHECK_DATABASE) {
        status = options.action == ACTION_CHECK_DATABASE ? status_of(schema_check(config, &store_mysql, stdout)) : 0;
    }
    if (status == 0 && (options.action == ACTION_CHECK || options.action == ACTION_CHECK_DATABASE)) {
        printf("%s: good: region %s, %u nodes, %u namespaces\n", options.config != NULL ? options.config : "--pool", config->region,
               config->pool.node_count, config->namespace_count);
    } else if (options.action == ACTION_RUN) {
        status = app_run(config) == OK ? 0 : 1;
    }
    config_destroy(&config);
    return status;
}
