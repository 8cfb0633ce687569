/* What:    the error enum that every fallible function returns, its texts and metric labels (err.def).
 * Owns:    nothing; texts are constants.
 * Threads: any.
 */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

enum err {
#define X(name, label, text) name,
#include "common/err.def"
#undef X
    ERR_COUNT
};

const char *err_text(enum err err);  /* "timed out" */
const char *err_label(enum err err); /* "timeout" */

#endif
