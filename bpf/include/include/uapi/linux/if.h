/* Named by headers of bcc; nothing of it is used here. */
