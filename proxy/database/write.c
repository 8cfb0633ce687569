#include "proxy/database/write.h"

#include <stdarg.h>

void write_end(struct write *write, enum write_outcome outcome, enum err err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    write->outcome = outcome;
    write->err = err;
    vsnprintf(write->error, sizeof write->error, fmt, args);
    va_end(args);
}
