/* Making containers: one, or two with a link between them. */
#ifndef PC_CREATE_H
#define PC_CREATE_H

#include "../common/message.h"
#include "options.h"
#include "template.h"

/* Serves a PC_CREATE and answers it on FD_CONTROL: everything of it exists, or nothing. */
void create_serve(const struct template *template, const struct lab_options *options, int fabric, struct pc_in *in);

#endif
