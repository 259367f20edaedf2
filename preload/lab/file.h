/* Files as the container sees them: opened by its agent, whose root is the container's, so no
   symbolic link and no ".." leads out. What has been opened is read and written by pytest. */
#ifndef PC_FILE_H
#define PC_FILE_H

#include "../common/failure.h"
#include "../common/message.h"

/* Serves a PC_OPEN. */
void file_serve(int agent, struct pc_in *in);

enum file_group { FILE_GROUP_TOO, FILE_GROUP_STAYS };

/* Makes a user, by name or number, the owner of an open file (O_PATH will do), and mostly the
   user's group that of the file. */
int file_give(int fd, const char *who, enum file_group group, const char *path, struct pc_failure *failure);

#endif
