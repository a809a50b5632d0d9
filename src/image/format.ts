/**
 * The numbers of the image format.
 */

/** Version of the format. Older ones are read, newer ones refused. CHANGELOG.md lists the changes. */
export const formatVersion = 1;
export const formatName = "virt-run-image";
export const pageBytes = 4096;
export const partPages = 16384;
export const highestAddress = 2 ** 47;
