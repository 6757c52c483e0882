/* Numbers inside of texts that the compiler puts together: "can be given " TEXT_OF(OPTIONS_PROXY_MAX) " times". The constant must
 * be a number as it is to be read, not an expression.
 */
#ifndef TEXT_H
#define TEXT_H

#define TEXT_OF(constant) TEXT_OF_NUMBER(constant)
#define TEXT_OF_NUMBER(number) #number

#endif
